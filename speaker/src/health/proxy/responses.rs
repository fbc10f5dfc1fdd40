//! Decoding of kube-proxy's JSON responses (`k8s.io/kubernetes/pkg/proxy/healthcheck`). The caller
//! has limited the size of a response.

use ferrolb_proto::range::Family;
use ferrolb_speaker_core::health::kube_proxy::{FamilyRules, LivezResult};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

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
#[serde(rename_all = "camelCase")]
struct FamilyHealth {
    last_updated: Option<Value>,
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
pub(super) fn livez(response: &HttpResponse) -> LivezResult {
    let live = match response.status {
        200 => true,
        503 => false,
        other => {
            return LivezResult::Failed(
                format!("unexpected response, not from kube-proxy: HTTP status {other}").into(),
            );
        }
    };
    let Ok(LivezBody { healthy, status, .. }) = serde_json::from_slice(&response.body) else {
        return LivezResult::Failed("unexpected response, not from kube-proxy".into());
    };
    let has_families = healthy.is_some() || status.is_some();
    let FamilyStatus { v4, v6 } = status.unwrap_or_default();
    let is = |family: Option<FamilyHealth>| family.map(|family| family.healthy);
    let rules = has_families.then(|| FamilyRules { v4: is(v4), v6: is(v6) });
    LivezResult::Replied { live: live && healthy != Some(false), rules }
}

/// Returns the end of the latest update of the rules of each family, from a response of
/// `GET /livez` with any status code. Up to Kubernetes 1.32, kube-proxy does not report it: its
/// `lastUpdated` is the present time.
pub(in crate::health) fn rule_updates(
    response: &HttpResponse,
) -> impl Iterator<Item = (Family, Timestamp)> + use<> {
    let body = serde_json::from_slice(&response.body).ok();
    let status = body.and_then(|LivezBody { status, .. }| status).unwrap_or_default();
    let families = [(Family::V4, status.v4), (Family::V6, status.v6)];
    families.into_iter().filter_map(|(family, health)| {
        Some((family, health?.last_updated?.as_str()?.parse().ok()?))
    })
}

/// Returns whether the node is eligible for load balancer traffic, from a response of
/// `GET /healthz` with any status code.
pub(super) fn eligible(response: &HttpResponse) -> Option<bool> {
    serde_json::from_slice(&response.body).ok().map(|HealthzBody { node_eligible }| node_eligible)
}

/// Returns whether kube-proxy is healthy, from a response of a health check node port. The status
/// code and the number of endpoints in the response concern only the Service's endpoints, and are
/// ignored.
pub(super) fn proxy_healthy(response: &HttpResponse) -> Option<bool> {
    serde_json::from_slice(&response.body)
        .ok()
        .map(|HealthCheckNodePortBody { service_proxy_healthy }| service_proxy_healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
        HttpResponse { status, body: body.into().into() }
    }

    fn replied(live: bool, rules: Option<(Option<bool>, Option<bool>)>) -> LivezResult {
        LivezResult::Replied { live, rules: rules.map(|(v4, v6)| FamilyRules { v4, v6 }) }
    }

    const LIVEZ_1_32: &str = r#"{"lastUpdated": "2026-08-01 10:00:00.1 +0000 UTC m=+9.1","currentTime": "2026-08-01 10:00:00.1 +0000 UTC m=+9.1"}"#;
    const LIVEZ_HEALTHY: &str = r#"{"lastUpdated":"2026-08-01T10:00:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":true,"status":{"IPv4":
        {"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true}}}"#;
    const LIVEZ_LATE: &str = r#"{"lastUpdated":"2026-08-01T09:59:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":false,"status":{"IPv4":
        {"lastUpdated":"2026-08-01T09:59:00.1Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T09:00:00.1Z","healthy":false}}}"#;
    const LIVEZ_STARTED: &str = r#"{"lastUpdated":"2026-08-01T10:00:00.1Z","currentTime":"2026-08-01T10:00:00.1Z","healthy":true}"#;

    #[test]
    fn livez_of_each_version_is_decoded() {
        let cases = [
            (200, LIVEZ_1_32, replied(true, None)),
            (503, LIVEZ_1_32, replied(false, None)),
            (200, LIVEZ_HEALTHY, replied(true, Some((Some(true), Some(true))))),
            (503, LIVEZ_HEALTHY, replied(false, Some((Some(true), Some(true))))),
            (503, LIVEZ_LATE, replied(false, Some((Some(true), Some(false))))),
            (200, LIVEZ_LATE, replied(false, Some((Some(true), Some(false))))),
            (200, LIVEZ_STARTED, replied(true, Some((None, None)))),
            (200, r#"{"lastUpdated":null,"healthy":null,"status":null}"#, replied(true, None)),
            (
                200,
                r#"{"lastUpdated":1,"status":{"IPv6":{"healthy":true},"IPv9":7}}"#,
                replied(true, Some((None, Some(true)))),
            ),
        ];
        for (status, body, expect) in cases {
            assert_eq!(livez(&response(status, body)), expect, "{status} {body}");
        }
    }

    #[test]
    fn responses_of_other_programs_are_rejected() {
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
                    matches!(livez(&response(status, body)), LivezResult::Failed(_)),
                    "{status} {body}"
                );
            }
            assert_eq!(
                (eligible(&response(200, body)), proxy_healthy(&response(200, body))),
                (None, None),
                "{body}"
            );
        }
        assert!(matches!(livez(&response(200, [0xff; 16 * 1024])), LivezResult::Failed(_)));
        for status in [204, 302, 404, 500] {
            let LivezResult::Failed(why) = livez(&response(status, LIVEZ_HEALTHY)) else {
                panic!("{status}")
            };
            assert!(why.contains(&status.to_string()), "{why}");
        }
    }

    #[test]
    fn the_ends_of_rule_updates_are_decoded() {
        let updates = |body: &str| {
            let text = |(family, time): (Family, Timestamp)| format!("{family} {time}");
            rule_updates(&response(200, body)).map(text).collect::<Vec<_>>()
        };
        let v4 = "IPv4 2026-08-01T09:59:00.1Z";
        assert_eq!(updates(LIVEZ_LATE), [v4, "IPv6 2026-08-01T09:00:00.1Z"]);
        for body in [LIVEZ_1_32, LIVEZ_STARTED, "no JSON", "{}"] {
            assert_eq!(updates(body), Vec::<String>::new(), "{body}");
        }
        let other = r#"{"lastUpdated":1,"status":{"IPv4":{"lastUpdated":7,"healthy":true}}}"#;
        assert_eq!(updates(other), Vec::<String>::new());
        assert_eq!(livez(&response(200, other)), replied(true, Some((Some(true), None))));
    }

    #[test]
    fn eligibility_and_node_port_health_ignore_the_status_code() {
        let old = r#"{"lastUpdated": "2026","currentTime": "2026", "nodeEligible": false}"#;
        let new = r#"{"lastUpdated":"2026","currentTime":"2026","nodeEligible":true,"healthy":true,"status":{}}"#;
        let node_port_body = r#"{"service":{"namespace":"default","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}"#;
        for status in [200, 503] {
            assert_eq!(eligible(&response(status, old)), Some(false));
            assert_eq!(eligible(&response(status, new)), Some(true));
            assert_eq!(eligible(&response(status, LIVEZ_HEALTHY)), None);
            assert_eq!(proxy_healthy(&response(status, node_port_body)), Some(true));
            assert_eq!(
                proxy_healthy(&response(status, node_port_body.replace("true", "false"))),
                Some(false)
            );
        }
    }
}
