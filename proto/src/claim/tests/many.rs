//! Many owners on one segment: hellos slow down together, and no node is declared failed meanwhile.

use super::*;
use crate::wire::hello::Body;

#[test]
fn above_forty_owners_the_interval_grows_and_is_promised_before_it_is_kept() {
    let names: Vec<String> = (0..100).map(|n| format!("n{n:02}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut wire = Wire::new(&nodes);
    // One unit for each node, with that node as the only candidate.
    let units: Vec<_> = nodes
        .iter()
        .zip(0u8..)
        .map(|(node, n)| unit(&[IpAddr::from([10, 0, 0, n])], &[*node]))
        .collect();
    wire.units(&units);
    wire.run(Duration::from_secs(5));
    let sent = wire.sent;
    wire.run(Duration::from_secs(2));
    let each = (wire.sent - sent) as f64 / 200.0;
    assert!(
        (7.5..9.5).contains(&each),
        "{each} hellos a second and node where 100 owners are: one in 125 ms"
    );
    assert_eq!(wire.node("n00").machine.own.pace.current, ms(125));
    for name in &nodes {
        let counts = wire.node(name).machine.counts();
        assert_eq!((counts.suspicions, counts.fences), (0, 0), "{name}");
    }
    // Sixty nodes release their addresses, and the others are fast again at once.
    wire.units(&units[60..]);
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.node("n99").machine.own.pace.current, ms(50));
    assert_eq!(wire.node("n99").machine.counts().suspicions, 0);
}

#[test]
fn who_gives_up_all_it_held_promises_the_slow_hellos_before_it_keeps_them() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), Instant::ZERO);
    let mut hellos = Vec::new();
    for n in 0..5_000 {
        let now = Instant::from_millis(n);
        if n == 3_000 {
            machine.handle(Input::Units(vec![]), now);
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
        [3_025, 3_075, 3_125, 3_175, 4_175],
        "the first says it, and three more at the fast rate"
    );
    assert!(hellos.iter().all(|(_, promised)| *promised == Duration::from_secs(1)), "{hellos:?}");
}
