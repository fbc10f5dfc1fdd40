//! A member that has gone mad: a sequence of signed frames, ARP sightings and lapses of time goes to a claim machine. It does not
//! panic, its deadlines move on, its tables stay within their limits, and what it starts and stops answering for fits together.

#![no_main]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ferrolb_proto::claim::{Claims, Config, Input, Output, Says};
use ferrolb_proto::election::{Candidate, Unit, order};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame, Key, KeyRing};
use ferrolb_proto::{Instant, Machine};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new([7; 32]));
static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::new(vec![KEY.clone()]));

/// Steps of one run: more would only be slow.
const STEPS_MAX: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut run = Run::new();
    let mut rest = bytes;
    for _ in 0..STEPS_MAX {
        let Some((&[kind, a, b], after)) = rest.split_first_chunk::<3>() else { return };
        let length = usize::from(a).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        match kind % 6 {
            0 => run.wait(Duration::from_millis(u64::from(a) << (b % 8))),
            1 => run.hand(Input::Foreign { address: address(a), mac: Mac([2, 0, 0, 0, 0, b]), announced: a > 127 }),
            2 => run.hand(Input::Says(Says { draining: a > 127, unhealthy: b > 127, checked: a & 1 == 1 })),
            3 => run.hand(
                [Input::Heard, Input::Lost, Input::Stuck(b > 127), Input::Sibling { precedes: b > 127 }]
                    [usize::from(a % 4)]
                .clone(),
            ),
            4 => run.units(a, b),
            _ => run.frame(body),
        }
    }
});

fn address(n: u8) -> IpAddr {
    if n > 200 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()]) } else { IpAddr::from([10, 0, 0, n % 8]) }
}

struct Run {
    machine: Claims,
    now: Instant,
    answers: BTreeSet<IpAddr>,
}

impl Run {
    fn new() -> Self {
        let config = Config {
            node: "n1".into(),
            epoch: 1,
            hello_interval: Duration::from_millis(50),
            hello_misses: 3,
            failback_delay: Some(Duration::from_secs(2)),
        };
        let now = Instant::from_millis(1_000);
        let mut run = Self { machine: Claims::new(config, now), now, answers: BTreeSet::new() };
        run.hand(Input::Keys(vec![KEY.id()]));
        run.units(4, 1);
        run.wait(Duration::from_millis(1_001));
        run
    }

    fn units(&mut self, count: u8, candidates: u8) {
        let names = ["n1", "n2", "n3"];
        let unit = |n: u8| {
            let address = address(n);
            let of = |(_, name): (usize, &&str)| Candidate {
                node: (**name).into(),
                order: order(name, address),
                ..Candidate::default()
            };
            let chosen = names.iter().enumerate().filter(|(i, _)| candidates & (1 << i) != 0);
            Arc::new(Unit {
                addresses: [address].into(),
                candidates: chosen.map(of).collect(),
                serves_here: candidates > 127,
                failing: if candidates & 64 == 0 { Box::default() } else { [address].into() },
            })
        };
        self.hand(Input::Units((0..count % 8).map(unit).collect()));
    }

    fn frame(&mut self, body: &[u8]) {
        let decoded = ferrolb_fuzz::signed(body, &KEY).and_then(|bytes| Frame::decode(&bytes, &RING).ok());
        if let Some((source, frame)) = decoded {
            self.hand(Input::Frame { source, frame });
        }
    }

    fn wait(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.machine.tick(self.now);
            self.drain();
            assert!(self.machine.deadline().is_none_or(|next| next > self.now), "it wants time again at once");
        }
        self.now = end;
    }

    fn hand(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Start(address) => assert!(self.answers.insert(address), "started twice"),
                Output::Stop(address) => assert!(self.answers.remove(&address), "stopped what it had not"),
                Output::Refresh(address) | Output::Defend(address) => assert!(self.answers.contains(&address)),
                // Whoever is challenged answers, or the machine would believe nobody.
                Output::Send { to: Some(to), frame: Frame { body: Body::Challenge { nonce }, .. }, .. }
                    if to.0[5] % 2 == 0 =>
                {
                    let clock = self.now.as_nanos();
                    let (flags, interval) = Default::default();
                    let interval = Duration::max(interval, Duration::from_millis(50));
                    let frame = Frame {
                        node: "n2".into(),
                        epoch: 7,
                        sequence: 1,
                        clock,
                        interval,
                        flags,
                        body: Body::Answer { nonce },
                    };
                    self.machine.handle(Input::Frame { source: to, frame }, self.now);
                }
                Output::Send { .. }
                | Output::Probe { .. }
                | Output::Check(_)
                | Output::AskAround
                | Output::TookOver(_)
                | Output::Left => {}
            }
        }
        assert!(self.machine.held().eq(self.answers.iter().copied()));
        assert!(self.machine.troubles().count() <= 8 + 55);
    }
}
