//! Fuzzes [`ClaimMachine`] with a malicious member: a sequence of signed frames, received ARP
//! frames and waits. The state machine does not panic, its deadlines advance, its tables stay
//! within their limits, and its outputs `Start` and `Stop` are consistent.

#![no_main]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ferrolb_speaker_core::claim::{ClaimConfig, ClaimMachine, Input, NodeState, Output};
use ferrolb_core::election::{Candidate, Unit};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Frame, HelloKey, HelloKeyRing};
use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<HelloKey> = LazyLock::new(|| HelloKey::new([7; 32]));
static RING: LazyLock<HelloKeyRing> = LazyLock::new(|| HelloKeyRing::new(vec![KEY.clone()]));

/// Maximum number of steps of a run. A higher limit would only make a run slower.
const STEPS_MAX: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut run = ClaimRun::new();
    let mut rest = bytes;
    for _ in 0..STEPS_MAX {
        let Some((&[kind, a, b], after)) = rest.split_first_chunk::<3>() else { return };
        let length = usize::from(a).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        match kind % 7 {
            0 => run.wait(Duration::from_millis(u64::from(a) << (b % 8))),
            1 => run.handle(Input::ForeignFrame {
                address: address(a),
                mac: Mac([2, 0, 0, 0, 0, b]),
                announced: a > 127,
            }),
            2 => run.handle(Input::NodeState(NodeState {
                draining: a > 127,
                unhealthy: b > 127,
                health_checked: a & 1 == 1,
            })),
            3 => run.handle(
                [
                    Input::FrameReceived,
                    Input::FramesDropped,
                    Input::MainLoopStalled(b > 127),
                    Input::SiblingInterface { is_active: b > 127 },
                    Input::ArpReply(Mac([2, 0, 0, 0, 0, b])),
                    Input::RequestAnswered(Mac([2, 0, 0, 0, 0, b])),
                    Input::NeighborReplied,
                ][usize::from(a % 7)]
                .clone(),
            ),
            4 => run.units(a, b),
            5 => run.frame(body),
            _ => run.datagram(body),
        }
    }
});

fn address(n: u8) -> IpAddr {
    if n > 200 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()])
    } else {
        IpAddr::from([10, 0, 0, n % 8])
    }
}

/// A [`ClaimMachine`] with its time, and the addresses that its outputs have started and not
/// stopped.
struct ClaimRun {
    machine: ClaimMachine,
    now: Instant,
    announced: BTreeSet<IpAddr>,
}

impl ClaimRun {
    fn new() -> Self {
        let config = ClaimConfig {
            node: "n1".into(),
            epoch: 1,
            hello_interval: Duration::from_millis(50),
            hello_misses: 3,
            detection_time_max: Duration::from_secs(2),
            failback_delay: Some(Duration::from_secs(2)),
        };
        let now = Instant::from_millis(1_000);
        let mut run =
            Self { machine: ClaimMachine::new(config, now), now, announced: BTreeSet::new() };
        run.handle(Input::Keys(vec![KEY.id()]));
        run.units(4, 1);
        run.wait(Duration::from_millis(1_001));
        run
    }

    fn units(&mut self, count: u8, candidates: u8) {
        let names = ["n1", "n2", "n3"];
        let unit = |n: u8| {
            let address = address(n);
            let candidate = |(_, name): (usize, &&str)| Candidate {
                node: (**name).into(),
                ..Candidate::default()
            };
            let chosen = names.iter().enumerate().filter(|(i, _)| candidates & (1 << i) != 0);
            Arc::new(Unit {
                can_serve_here: candidates > 127,
                failing: candidates & 64 != 0,
                announced_here: candidates & 32 == 0,
                ..Unit::new(address, address, chosen.map(candidate).collect())
            })
        };
        let (end, kept) = (count % 8, count / 8 % 8);
        let removed = (end.max(kept)..8).map(address).collect();
        self.handle(Input::Units { changed: (0..end).map(unit).collect(), removed });
    }

    fn frame(&mut self, body: &[u8]) {
        let decoded = ferrolb_fuzz::sign_input(body, &KEY)
            .and_then(|bytes| Frame::decode(&bytes, &RING).ok());
        if let Some((source, frame)) = decoded {
            self.handle(Input::Frame { source, frame });
        }
    }

    fn datagram(&mut self, body: &[u8]) {
        let decoded = ferrolb_fuzz::sign_input(body, &KEY)
            .and_then(|bytes| Frame::decode(&bytes, &RING).ok());
        if let Some((_, frame)) = decoded {
            self.handle(Input::Datagram(frame));
        }
    }

    fn wait(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.machine.tick(self.now);
            self.drain();
            assert!(
                self.machine.deadline().is_none_or(|next| next > self.now),
                "the next deadline is in the future"
            );
        }
        self.now = end;
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Start(address) => {
                    assert!(self.announced.insert(address), "{address} is not started twice")
                }
                Output::Stop(address) => {
                    assert!(
                        self.announced.remove(&address),
                        "{address} was started before its stop"
                    )
                }
                Output::AnnounceSeries(address) | Output::Defend(address) => {
                    assert!(self.announced.contains(&address))
                }
                // A challenged node with an even MAC replies; without replies, the state machine
                // would accept no other node.
                Output::Send {
                    to: Some(to),
                    frame: Frame { body: Body::Challenge { nonce }, .. },
                    ..
                } if to.0[5] % 2 == 0 => {
                    let clock = self.now.as_nanos();
                    let (flags, interval) = Default::default();
                    let interval = Duration::max(interval, Duration::from_millis(50));
                    let frame = Frame {
                        node: "n2".into(),
                        epoch: 7,
                        clock,
                        claim_set: ClaimSetSummary::default(),
                        interval,
                        detection_time: None,
                        flags,
                        body: Body::ChallengeReply { nonce },
                    };
                    self.machine.handle(Input::Frame { source: to, frame }, self.now);
                }
                Output::Send { .. }
                | Output::SendDatagram { .. }
                | Output::LivenessProbe { .. }
                | Output::ArpProbe(_)
                | Output::ProbeNeighbors
                | Output::Moved(_)
                | Output::Finished => {}
            }
        }
        assert!(self.machine.owned().keys().copied().eq(self.announced.iter().copied()));
        assert!(self.machine.conflicts().count() <= 8 + 55);
    }
}
