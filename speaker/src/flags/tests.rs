//! Tests of the flags: names, defaults, help texts and errors.

use clap::CommandFactory;

use super::*;

fn parse(args: &[&str]) -> Result<Flags, String> {
    let words = ["ferrolb-speaker", "--node-name=node1"].iter().chain(args);
    Flags::try_parse_from(words).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let flags = parse(&[]).unwrap();
    assert_eq!(flags.node_name, "node1");
    assert!(!flags.ignore_exclude_label);
    assert_eq!((flags.hello_interval, flags.hello_misses), (Duration::from_millis(50), 3));
    assert_eq!(flags.detection_time_max, Duration::from_secs(2));
    assert_eq!(flags.failback_delay, TimeOrNever(Some(Duration::from_secs(30))));
    assert_eq!(flags.gratuitous_interval, TimeOrNever(None));
    assert_eq!(flags.kube_proxy_health, KubeProxyMode::Auto);
    assert_eq!((flags.kube_proxy_address, flags.gobgp.clone()), (None, None));
    assert_eq!(
        (flags.health_interval, flags.health_fall, flags.health_rise),
        (Duration::from_secs(1), 2, 3)
    );
    assert_eq!(flags.challenge_port, 7473);
}

#[test]
fn every_flag_has_an_environment_variable_and_a_help_text() {
    for arg in Flags::command()
        .get_arguments()
        .filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
    {
        let flag = arg.get_long().unwrap();
        let env = format!("FERROLB_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().unwrap().to_str(), Some(env.as_str()));
        assert!(arg.get_help().is_some(), "--{flag} has no help");
    }
}

#[test]
fn the_help_explains_the_format_of_a_time() {
    let help = Flags::command().render_help().to_string();
    assert!(
        help.contains("<TIME>") && help.contains("TIME is a whole number and a unit (ms, s or m)"),
        "{help}"
    );
}

#[test]
fn container_interfaces_are_excluded_by_default() {
    let excluded = parse(&[]).unwrap().exclude_interfaces;
    let cases = [
        (
            true,
            "lo docker0 br-0123456789ab cni0 cali12ab flannel.1 veth3f lxc1 lxcbr0 virbr0 kube-ipvs0 nodelocaldns vxlan.calico cbr0 tunl0 dummy0 \
             kube-bridge kube-dummy-if antrea-gw0 ovn-k8s-mp0 weave nerdctl0 lxdbr0 incusbr0 tap12ab idrac",
        ),
        (
            false,
            "eth0 ens3 enp1s0f0 bond0 br0 br-lan team0 wlan0 lan docke lofi0 xveth0 weave1 idrac0",
        ),
    ];
    for (expect, names) in cases {
        for name in names.split(' ') {
            assert_eq!(excluded.iter().any(|regex| regex.is_match(name)), expect, "{name}");
        }
    }
}

#[test]
fn flag_values_are_parsed() {
    let flags = parse(&[
        "--exclude-interfaces=a.*, b0",
        "--exclude-interfaces=c",
        "--ignore-exclude-label",
        "--failback-delay=never",
        "--gratuitous-interval=5m",
        "--kube-proxy-address=[fd00::1]:10256",
    ])
    .unwrap();
    assert_eq!(flags.kube_proxy_address, Some("[fd00::1]:10256".parse().unwrap()));
    let ranges = |text: &str| parse(&[&format!("--health-checks={text}")]).unwrap().health_checks.0;
    assert_eq!((parse(&[]).unwrap().health_checks.0, ranges("off")), (Some(Vec::new()), None));
    let both = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
    assert_eq!(ranges("10.0.0.0/8, fd00::/8"), Some(both.to_vec()));
    for (word, mode) in [
        ("auto", KubeProxyMode::Auto),
        ("required", KubeProxyMode::Required),
        ("off", KubeProxyMode::Off),
    ] {
        assert_eq!(
            parse(&[&format!("--kube-proxy-health={word}")]).unwrap().kube_proxy_health,
            mode
        );
    }
    assert_eq!(
        flags.exclude_interfaces.iter().map(Regex::as_str).collect::<Vec<_>>(),
        ["^(?:a.*)$", "^(?:b0)$", "^(?:c)$"]
    );
    assert!(flags.ignore_exclude_label && flags.failback_delay == TimeOrNever(None));
    assert_eq!(flags.gratuitous_interval, TimeOrNever(Some(Duration::from_secs(300))));
    assert!(!parse(&["--ignore-exclude-label=false"]).unwrap().ignore_exclude_label);
    assert!(
        parse(&["--ignore-exclude-lb"]).unwrap().ignore_exclude_label,
        "MetalLB's name of --ignore-exclude-label"
    );
}

#[test]
fn an_invalid_value_is_rejected_with_the_accepted_ones() {
    let cases = [
        ("--exclude-interfaces=eth(", "--exclude-interfaces"),
        ("--hello-interval=5ms", "10ms to 10s"),
        ("--hello-interval=1m", "10ms to 10s"),
        ("--hello-misses=1", "2..=100"),
        ("--detection-time-max=61s", "at most 1m"),
        ("--failback-delay=often", "never"),
        ("--gratuitous-interval=9s", "10s or longer"),
        ("--gratuitous-interval=often", "never"),
        ("--kube-proxy-health=maybe", "required"),
        ("--kube-proxy-address=node1", "--kube-proxy-address"),
        ("--health-interval=99ms", "100ms to 5m"),
        ("--health-interval=301s", "100ms to 5m"),
        ("--health-fall=0", "1..=100"),
        ("--health-rise=101", "1..=100"),
        ("--health-interval=0s", "--health-interval"),
        ("--gobgp=/run/gobgp.sock", "unix:"),
        ("--gobgp=unix:gobgp.sock", "an absolute path"),
        ("--health-checks=10.0.0.0/33", "write CIDR ranges, `node` or `off`"),
    ];
    for (flag, expect) in cases {
        let error = parse(&[flag]).unwrap_err();
        assert!(
            error.contains(expect) && error.contains(flag.split('=').next().unwrap()),
            "{flag}: {error}"
        );
    }
    let error = Flags::try_parse_from(["ferrolb-speaker", "--node-name="]).unwrap_err().to_string();
    assert!(error.contains("kubectl get nodes"), "{error}");
}
