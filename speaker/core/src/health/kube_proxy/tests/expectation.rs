//! Tests of the time for which a kube-proxy is expected.

use super::*;

#[test]
fn a_node_started_without_routes_waits_60_s_for_a_kube_proxy() {
    const STARTED_WITHOUT_ROUTES: KubeProxyContext =
        KubeProxyContext { started_without_routes: true, ..NODE_READY };
    let mut without = TestMonitor::new(KubeProxyMode::Auto, NODE_READY);
    assert_eq!(without.livez(LivezResult::Refused), NotChecked);
    without.context(STARTED_WITHOUT_ROUTES);
    assert_eq!(without.health.state, Unknown, "the state of gobgpd arrives after the first round");
    assert!(
        without.health.unhealthy() && without.message().contains("may be starting"),
        "the message is {:?}",
        without.message()
    );
    for second in 1..60 {
        let expect = if second < 59 { Unknown } else { NotChecked };
        assert_eq!(without.livez(LivezResult::Refused), expect, "this is round {}", second + 1);
    }
    assert_eq!(without.monitor.deadline(), None);

    let mut with = TestMonitor::new(KubeProxyMode::Auto, STARTED_WITHOUT_ROUTES);
    assert_eq!(with.livez(LivezResult::Refused), Unknown);
    assert_eq!(
        with.livez(NO_RULES_YET),
        Unhealthy,
        "a kube-proxy that was found is expected to work"
    );
    assert_eq!(with.livez(GOOD_REPLY), Healthy);

    for (mode, context, expect) in [
        (
            KubeProxyMode::Auto,
            KubeProxyContext { healthy_elsewhere: true, ..STARTED_WITHOUT_ROUTES },
            Unhealthy,
        ),
        (KubeProxyMode::Required, STARTED_WITHOUT_ROUTES, Unhealthy),
        (KubeProxyMode::Off, STARTED_WITHOUT_ROUTES, NotChecked),
    ] {
        assert_eq!(
            TestMonitor::new(mode, context).livez(LivezResult::Refused),
            expect,
            "the mode is {mode:?}"
        );
    }
}

#[test]
fn a_kube_proxy_found_on_no_node_is_not_expected() {
    let mut test = TestMonitor::new(KubeProxyMode::Auto, NODE_READY);
    assert_eq!(test.livez(LivezResult::Refused), NotChecked);
    assert!(!test.health.unhealthy() && !test.health.checked());
    test.context(HEALTHY_ELSEWHERE);
    assert_eq!(test.health.state, Unhealthy);
    assert!(test.message().contains("another node"), "the message is {:?}", test.message());
    test.context(NODE_READY);
    assert_eq!(test.health.state, Unhealthy, "the other kube-proxy may restart");
    test.now = test.now + EXPECTED_MAX;
    assert_eq!(test.livez(LivezResult::Refused), NotChecked);
    assert_eq!(test.health.last_healthy, None);
    assert_eq!(test.livez(NO_RULES_YET), Unhealthy, "a kube-proxy was found, and has no rules yet");
    assert_eq!(test.livez(LivezResult::Refused), Unhealthy);
    assert_eq!(test.livez(GOOD_REPLY), Healthy);
    test.context(HEALTHY_ELSEWHERE);
    assert_eq!(test.health.state, Healthy, "other nodes do not affect a healthy kube-proxy");
}

#[test]
fn a_kube_proxy_that_is_healthy_on_no_node_for_two_minutes_is_not_expected_any_more() {
    for gone in [LivezResult::Refused, LATE_RULES, failed("404")] {
        let mut test = TestMonitor::new(KubeProxyMode::Auto, HEALTHY_ELSEWHERE);
        assert_eq!(test.livez(GOOD_REPLY), Healthy);
        assert_eq!(test.livez(GOOD_REPLY), Healthy);
        assert_eq!(test.health.last_healthy, None);
        for _ in 0..300 {
            test.livez(gone.clone());
        }
        assert_eq!(test.health.state, Unhealthy, "another node has a healthy one: {gone:?}");
        assert_eq!(test.health.last_healthy, Timestamp::from_second(1).ok());
        test.context(NODE_READY);
        for second in 0..=120 {
            let expect = if second < 119 { Unhealthy } else { NotChecked };
            assert_eq!(test.livez(gone.clone()), expect, "{gone:?}: {second} s have passed");
        }
        assert!(test.message().contains("no node has had a healthy kube-proxy for 120 s"));
        assert_eq!(test.health.last_healthy, Timestamp::from_second(1).ok());
        let reports = test.reports;
        for _ in 0..60 {
            test.livez(gone.clone());
        }
        assert_eq!(test.reports, reports, "the health is stable: {gone:?}");
        assert_eq!(test.livez(GOOD_REPLY), Healthy, "as after the start of the speaker");
        assert_eq!(test.health.last_healthy, None);

        let mut required = TestMonitor::new(KubeProxyMode::Required, NODE_READY);
        required.livez(GOOD_REPLY);
        required.now = required.now + EXPECTED_MAX * 2;
        assert_eq!([0; 20].map(|_| required.livez(gone.clone())).last(), Some(&Unhealthy));
    }
}
