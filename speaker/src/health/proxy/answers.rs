//! kube-proxy's answers as JSON (`k8s.io/kubernetes/pkg/proxy/healthcheck`). Whatever is sent is bounded before it comes here.

use ferrolb_proto::health::data_path::{Livez, Rules};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::health::http::Answer;

/// `/livez`. Until Kubernetes 1.32 it has the two times alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    /// In every version, so what does not have it is no kube-proxy.
    #[serde(rename = "lastUpdated")]
    _last_updated: IgnoredAny,
    healthy: Option<bool>,
    status: Option<Status>,
}

/// The families that have rules; left out as long as none has.
#[derive(Deserialize, Default)]
struct Status {
    #[serde(rename = "IPv4")]
    v4: Option<FamilyHealth>,
    #[serde(rename = "IPv6")]
    v6: Option<FamilyHealth>,
}

#[derive(Deserialize)]
struct FamilyHealth {
    healthy: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Eligibility {
    node_eligible: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Witness {
    service_proxy_healthy: bool,
}

/// What an answer to `GET /livez` says.
pub(super) fn livez(answer: &Answer) -> Livez {
    let live = match answer.status {
        200 => true,
        503 => false,
        other => return Livez::Failed(format!("the answer is {other}, which is none of kube-proxy's").into()),
    };
    let Ok(Health { healthy, status, .. }) = serde_json::from_slice(&answer.body) else {
        return Livez::Failed("the answer is none of kube-proxy's".into());
    };
    let tells_families = healthy.is_some() || status.is_some();
    let Status { v4, v6 } = status.unwrap_or_default();
    let is = |family: Option<FamilyHealth>| family.map(|family| family.healthy);
    let rules = tells_families.then(|| Rules { v4: is(v4), v6: is(v6) });
    Livez::Answered { live: live && healthy != Some(false), rules }
}

/// What an answer to `GET /healthz` says of the node, whatever its code.
pub(super) fn eligible(answer: &Answer) -> Option<bool> {
    serde_json::from_slice(&answer.body).ok().map(|Eligibility { node_eligible }| node_eligible)
}

/// What a health check node port says of kube-proxy. Its code and its count are about the Service's endpoints.
pub(super) fn witness(answer: &Answer) -> Option<bool> {
    serde_json::from_slice(&answer.body).ok().map(|Witness { service_proxy_healthy }| service_proxy_healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, body: body.into().into() }
    }

    fn answered(live: bool, rules: Option<(Option<bool>, Option<bool>)>) -> Livez {
        Livez::Answered { live, rules: rules.map(|(v4, v6)| Rules { v4, v6 }) }
    }

    const OLD: &str = r#"{"lastUpdated": "2026-08-01 10:00:00.1 +0000 UTC m=+9.1","currentTime": "2026-08-01 10:00:00.1 +0000 UTC m=+9.1"}"#;
    const NEW: &str = r#"{"lastUpdated":"2026-08-01T10:00:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":true,"status":{"IPv4":
        {"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true}}}"#;
    const LATE: &str = r#"{"lastUpdated":"2026-08-01T09:59:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":false,"status":{"IPv4":
        {"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T09:00:00.1Z","healthy":false}}}"#;
    const STARTED: &str =
        r#"{"lastUpdated":"2026-08-01T10:00:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":true}"#;

    #[test]
    fn livez_of_each_version_is_understood() {
        let cases = [
            (200, OLD, answered(true, None)),
            (503, OLD, answered(false, None)),
            (200, NEW, answered(true, Some((Some(true), Some(true))))),
            (503, NEW, answered(false, Some((Some(true), Some(true))))),
            (503, LATE, answered(false, Some((Some(true), Some(false))))),
            (200, LATE, answered(false, Some((Some(true), Some(false))))),
            (200, STARTED, answered(true, Some((None, None)))),
            (200, r#"{"lastUpdated":null,"healthy":null,"status":null}"#, answered(true, None)),
            (
                200,
                r#"{"lastUpdated":1,"status":{"IPv6":{"healthy":true},"IPv9":7}}"#,
                answered(true, Some((None, Some(true)))),
            ),
        ];
        for (status, body, expect) in cases {
            assert_eq!(livez(&answer(status, body)), expect, "{status} {body}");
        }
    }

    #[test]
    fn what_is_none_of_kube_proxys_answers_is_no_word_of_it() {
        let deep = [r#"{"lastUpdated":"#, &"[".repeat(16_000)].concat();
        let bodies = [
            "",
            "ok",
            "null",
            "[]",
            "{}",
            "7",
            "{\"lastUpdated\":",
            "\u{0}\u{0}",
            &deep,
            r#"{"healthy":true}"#,
            r#"{"lastUpdated":"","healthy":"yes"}"#,
            r#"{"lastUpdated":"","status":{"IPv4":true}}"#,
            r#"{"lastUpdated":"","status":{"IPv4":{}}}"#,
            r#"{"lastUpdated":"","status":"ok"}"#,
        ];
        for body in bodies {
            for status in [200, 503] {
                assert!(matches!(livez(&answer(status, body)), Livez::Failed(_)), "{status} {body}");
            }
            assert_eq!((eligible(&answer(200, body)), witness(&answer(200, body))), (None, None), "{body}");
        }
        assert!(matches!(livez(&answer(200, [0xff; 16 * 1024])), Livez::Failed(_)));
        for status in [204, 302, 404, 500] {
            let Livez::Failed(why) = livez(&answer(status, NEW)) else { panic!("{status}") };
            assert!(why.contains(&status.to_string()), "{why}");
        }
    }

    #[test]
    fn eligibility_and_witness_do_not_depend_on_the_code() {
        let old = r#"{"lastUpdated": "2026","currentTime": "2026", "nodeEligible": false}"#;
        let new = r#"{"lastUpdated":"2026","currentTime":"2026","nodeEligible":true,"healthy":true,"status":{}}"#;
        let word = r#"{"service":{"namespace":"default","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}"#;
        for status in [200, 503] {
            assert_eq!(eligible(&answer(status, old)), Some(false));
            assert_eq!(eligible(&answer(status, new)), Some(true));
            assert_eq!(eligible(&answer(status, NEW)), None);
            assert_eq!(witness(&answer(status, word)), Some(true));
            assert_eq!(witness(&answer(status, word.replace("true", "false"))), Some(false));
        }
    }
}
