//! Tests of the health check's annotation, with tables of valid and invalid texts, and with random
//! texts.

use proptest::prelude::*;

use super::*;

fn check(kind: CheckKind, port: CheckPort) -> HealthCheck {
    HealthCheck { kind, port, interval: None, timeout: None, fall: None, rise: None }
}

fn http(path: &str) -> CheckKind {
    CheckKind::Http { path: path.into() }
}

#[test]
fn every_format_of_a_check_is_decoded() {
    use CheckKind::Tcp;
    use CheckPort::Number;
    let web = || CheckPort::Named("web".into());
    let second = Some(Duration::from_secs(1));
    let cases = [
        ("tcp", check(Tcp, web())),
        ("tcp:8080", check(Tcp, Number(8080))),
        ("tcp:1", check(Tcp, Number(1))),
        ("tcp:65535", check(Tcp, Number(65535))),
        ("http", check(http("/"), web())),
        ("http:8080", check(http("/"), Number(8080))),
        ("http/", check(http("/"), web())),
        ("http/ready?deep=1", check(http("/ready?deep=1"), web())),
        ("http:8080/a/b:c%20d", check(http("/a/b:c%20d"), Number(8080))),
        (" http : 8080 ", check(http("/"), Number(8080))),
        ("tcp;interval=1s", HealthCheck { interval: second, ..check(Tcp, web()) }),
        (
            "tcp:8080;interval=1s;timeout=500ms;fall=3;rise=2",
            HealthCheck {
                interval: second,
                timeout: Some(Duration::from_millis(500)),
                fall: Some(3),
                rise: Some(2),
                ..check(Tcp, Number(8080))
            },
        ),
        (
            " http:8080/x ; rise = 100 ; timeout = 30s ; interval = 5m ",
            HealthCheck {
                interval: Some(Duration::from_secs(300)),
                timeout: Some(Duration::from_secs(30)),
                rise: Some(100),
                ..check(http("/x"), Number(8080))
            },
        ),
        (
            "tcp;fall=1;timeout=10ms;interval=100ms",
            HealthCheck {
                interval: Some(Duration::from_millis(100)),
                timeout: Some(Duration::from_millis(10)),
                fall: Some(1),
                ..check(Tcp, web())
            },
        ),
    ];
    for (text, expect) in cases {
        assert_eq!(HealthCheck::read(text, Some("web")), Ok(expect), "the annotation is {text:?}");
    }
    assert_eq!(
        HealthCheck::read("tcp", Some("")),
        Ok(check(Tcp, CheckPort::Named("".into()))),
        "a port may have no name"
    );
    assert_eq!(
        HealthCheck::read("tcp:53", None),
        Ok(check(Tcp, Number(53))),
        "a Service without a TCP port may name a port in the annotation"
    );
}

#[test]
fn every_problem_has_a_message_with_a_fix() {
    let port = "is not a port: write a number from 1 to 65535";
    let setting = "is not a setting: write interval=, timeout=, fall= or rise= and its value";
    let interval = "write a time from 100ms to 300s, such as 1s";
    let timeout = "write a time from 10ms to 30s, such as 1s";
    let count = "write a number from 1 to 100";
    let encode = "is not allowed in the path: write it as % and two hexadecimal digits";
    let cases = [
        ("https", r#""https" is not a type of check: write tcp or http"#.to_owned()),
        ("TCP", r#""TCP" is not a type of check: write tcp or http"#.to_owned()),
        ("8080", r#""8080" is not a type of check: write tcp or http"#.to_owned()),
        (";fall=2", r#""" is not a type of check: write tcp or http"#.to_owned()),
        ("/healthz", r#""" is not a type of check: write tcp or http"#.to_owned()),
        ("tcp:", format!(r#""" {port}"#)),
        ("tcp:0", format!(r#""0" {port}"#)),
        ("tcp:65536", format!(r#""65536" {port}"#)),
        ("tcp:+80", format!(r#""+80" {port}"#)),
        ("tcp:http", format!(r#""http" {port}"#)),
        ("http:80:81/x", format!(r#""80:81" {port}"#)),
        ("tcp:80/x", r#"a tcp check has no path: write http, or remove "/x""#.to_owned()),
        ("http/a b", format!("' ' {encode}")),
        ("http/ä", format!("'ä' {encode}")),
        ("http/a#b", format!("'#' {encode}")),
        ("http/a\"", format!(r#"'"' {encode}"#)),
        ("http/\r\nHost: x", format!(r"'\r' {encode}")),
        ("tcp;", format!(r#""" {setting}"#)),
        ("tcp;fast", format!(r#""fast" {setting}"#)),
        ("tcp;port=8080", format!(r#""port=8080" {setting}"#)),
        ("tcp;Fall=2", format!(r#""Fall=2" {setting}"#)),
        ("tcp;fall=2;fall=2", "fall is set twice: remove one".to_owned()),
        ("tcp;interval=1s;rise=1;interval=2s", "interval is set twice: remove one".to_owned()),
        ("tcp;interval=99ms", format!(r#"interval="99ms": {interval}"#)),
        ("tcp;interval=301s", format!(r#"interval="301s": {interval}"#)),
        ("tcp;interval=1", format!(r#"interval="1": {interval}"#)),
        ("tcp;interval=", format!(r#"interval="": {interval}"#)),
        ("tcp;timeout=9ms", format!(r#"timeout="9ms": {timeout}"#)),
        ("tcp;timeout=31s", format!(r#"timeout="31s": {timeout}"#)),
        ("tcp;fall=0", format!(r#"fall="0": {count}"#)),
        ("tcp;fall=101", format!(r#"fall="101": {count}"#)),
        ("tcp;rise=-1", format!(r#"rise="-1": {count}"#)),
        ("tcp;rise=two", format!(r#"rise="two": {count}"#)),
        ("tcp;rise=99999999999", format!(r#"rise="99999999999": {count}"#)),
    ];
    for (text, expect) in cases {
        let problem = HealthCheck::read(text, Some("web")).expect_err(text).to_string();
        assert_eq!(problem, format!("annotation ferrolb.io/health-check: {expect}"), "{text:?}");
    }
    let no_port = HealthCheck::read("http/x", None).expect_err("no port").to_string();
    assert_eq!(
        no_port,
        "annotation ferrolb.io/health-check: the Service has no TCP port: write a port, as in tcp:8080"
    );
}

#[test]
fn a_path_has_a_maximum_length() {
    let longest = format!("/{}", "x".repeat(PATH_MAX - 1));
    let read =
        |path: &str| HealthCheck::read(&format!("http{path}"), Some("")).map(|check| check.kind);
    assert_eq!(read(&longest), Ok(http(&longest)));
    let problem = read(&format!("{longest}x")).expect_err("too long").to_string();
    assert_eq!(
        problem,
        "annotation ferrolb.io/health-check: the path is longer than 1024 bytes: shorten it"
    );
}

proptest! {
    #[test]
    fn any_text_is_decoded_or_rejected_with_a_short_message(
        text in "(tcp|http|.{0,200}):?[0-9]{0,7}(/.{0,80})?(;? ?(interval|fall|rise|timeout|.{0,99})=.{0,200}){0,3}",
        port in proptest::option::of("[a-z]{0,5}"),
    ) {
        match HealthCheck::read(&text, port.as_deref()) {
            Ok(check) => {
                prop_assert!(check.interval.is_none_or(|time| HEALTH_INTERVAL_RANGE.contains(&time)));
                prop_assert!(check.timeout.is_none_or(|time| TIMEOUT_RANGE.contains(&time)));
                prop_assert!([check.fall, check.rise].into_iter().flatten().all(|count| COUNT_RANGE.contains(&count)));
            }
            // In the message, an escaped character may take ten bytes.
            Err(problem) => prop_assert!(problem.to_string().len() < 800, "the message is short: {problem}"),
        }
    }
}
