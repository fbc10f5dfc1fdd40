//! Many owners on one segment: hellos slow down together, and no node is declared failed meanwhile.

use super::*;

#[test]
fn the_hello_interval_grows_with_the_nodes_and_with_the_owners() {
    let names: Vec<String> = (0..100).map(|n| format!("n{n:02}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut segment = Segment::new(&nodes);
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.node("n00").machine.members().hello_interval(), ms(250));
    // One unit for each node, with that node as the only candidate.
    let units: Vec<_> = nodes
        .iter()
        .zip(0u8..)
        .map(|(node, n)| unit(IpAddr::from([10, 0, 0, n]), &[*node]))
        .collect();
    segment.units(&units);
    segment.run(Duration::from_secs(5));
    let sent = segment.sent;
    segment.run(Duration::from_secs(2));
    let rate = (segment.sent - sent) as f64 / 200.0;
    assert!((7.5..9.5).contains(&rate), "each node sends {rate} hellos per second, not 8");
    assert_eq!(segment.node("n00").machine.members().hello_interval(), ms(125));
    for name in &nodes {
        let counts = segment.node(name).machine.counts();
        assert_eq!((counts.suspicions, counts.fences), (0, 0), "suspicions and fences of {name}");
    }
    // Sixty nodes release their addresses. The other ones return to the short interval at once.
    segment.units(&units[60..]);
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.node("n99").machine.members().hello_interval(), ms(50));
    assert_eq!(segment.node("n99").machine.counts().suspicions, 0);
}

#[test]
fn hellos_carry_a_longer_interval_before_it_applies() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    set_units(&mut machine, vec![unit(VIP, &["node1"])], Instant::ZERO);
    let mut hellos = Vec::new();
    for n in 0..5_000 {
        let now = Instant::from_millis(n);
        if n == 3_000 {
            set_units(&mut machine, vec![], now);
        }
        machine.tick(now);
        while let Some(output) = machine.poll() {
            if let Output::Send {
                frame: Frame { body: Body::Hello { .. }, interval, .. }, ..
            } = output
            {
                hellos.extend((n > 3_000).then_some((n, interval)));
            }
        }
    }
    let times: Vec<_> = hellos.iter().map(|(at, _)| *at).collect();
    assert_eq!(
        times[..5],
        [3_025, 3_050, 3_100, 3_150, 3_350],
        "four hellos at the old interval carry the new one"
    );
    assert!(
        hellos.iter().all(|(_, promised)| *promised == ms(200)),
        "every hello carries the new interval: {hellos:?}"
    );
}
