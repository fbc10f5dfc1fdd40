//! Decoding of kube-proxy's JSON responses (`k8s.io/kubernetes/pkg/proxy/healthcheck`). The caller
//! has limited the size of a response.

use ferrolb_proto::health::kube_proxy::{FamilyRules, LivezResult};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::health::http::HttpResponse;

/// Response of `/livez`. Up to Kubernetes 1.32, the response contains only `lastUpdated` and
/// `currentTime`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LivezBody {
    /// Every version of kube-proxy sends this field, so a response without it is not kube-proxy's.
    #[serde(rename = "lastUpdated")]
    _last_updated: IgnoredAny,
    healthy: Option<bool>,
    status: Option<FamilyStatus>,
}

/// Health of the address families for which kube-proxy has made rules. kube-proxy omits this part
/// of the response while no family has rules.
#[derive(Deserialize, Default)]
struct FamilyStatus {
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
struct HealthzBody {
    node_eligible: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthCheckNodePortBody {
    service_proxy_healthy: bool,
}

/// Interprets a response of `GET /livez`.
pub(super) fn livez(answer: &HttpResponse) -> LivezResult {
    let live = match answer.status {
        200 => true,
        503 => false,
        other => {
            return LivezResult::Failed(
                format!("unexpected response, not from kube-proxy: HTTP status {other}").into(),
            );
        }
    };
    let Ok(LivezBody { healthy, status, .. }) = serde_json::from_slice(&answer.body) else {
        return LivezResult::Failed("unexpected response, not from kube-proxy".into());
    };
    let tells_families = healthy.is_some() || status.is_some();
    let FamilyStatus { v4, v6 } = status.unwrap_or_default();
    let is = |family: Option<FamilyHealth>| family.map(|family| family.healthy);
    let rules = tells_families.then(|| FamilyRules { v4: is(v4), v6: is(v6) });
    LivezResult::Replied { live: live && healthy != Some(false), rules }
}

/// Returns whether the node is eligible, from a response of `GET /healthz` with any status code.
pub(super) fn eligible(answer: &HttpResponse) -> Option<bool> {
    serde_json::from_slice(&answer.body).ok().map(|HealthzBody { node_eligible }| node_eligible)
}

/// Returns whether kube-proxy is healthy, from a response of a health check node port. The status
/// code and the number of endpoints in the response concern only the Service's endpoints, and are
/// ignored.
pub(super) fn proxy_healthy(answer: &HttpResponse) -> Option<bool> {
    serde_json::from_slice(&answer.body)
        .ok()
        .map(|HealthCheckNodePortBody { service_proxy_healthy }| service_proxy_healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
        HttpResponse { status, body: body.into().into() }
    }

    fn answered(live: bool, rules: Option<(Option<bool>, Option<bool>)>) -> LivezResult {
        LivezResult::Replied { live, rules: rules.map(|(v4, v6)| FamilyRules { v4, v6 }) }
    }

    const OLD: &str = r#"{"lastUpdated": "2026-08-01 10:00:00.1 +0000 UTC m=+9.1","currentTime": "2026-08-01 10:00:00.1 +0000 UTC m=+9.1"}"#;
    const NEW: &str = r#"{"lastUpdated":"2026-08-01T10:00:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":true,"status":{"IPv4":
        {"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true}}}"#;
    const LATE: &str = r#"{"lastUpdated":"2026-08-01T09:59:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":false,"status":{"IPv4":
        {"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T09:00:00.1Z","healthy":false}}}"#;
    const STARTED: &str = r#"{"lastUpdated":"2026-08-01T10:00:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":true}"#;

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
                assert!(
                    matches!(livez(&answer(status, body)), LivezResult::Failed(_)),
                    "{status} {body}"
                );
            }
            assert_eq!(
                (eligible(&answer(200, body)), proxy_healthy(&answer(200, body))),
                (None, None),
                "{body}"
            );
        }
        assert!(matches!(livez(&answer(200, [0xff; 16 * 1024])), LivezResult::Failed(_)));
        for status in [204, 302, 404, 500] {
            let LivezResult::Failed(why) = livez(&answer(status, NEW)) else { panic!("{status}") };
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
            assert_eq!(proxy_healthy(&answer(status, word)), Some(true));
            assert_eq!(proxy_healthy(&answer(status, word.replace("true", "false"))), Some(false));
        }
    }
}
