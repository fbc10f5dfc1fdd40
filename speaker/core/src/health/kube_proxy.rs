//! The health of kube-proxy on one node, computed from the replies to periodic requests, and stable
//! despite single failures. Each speaker has one [`KubeProxyMonitor`], which the driver that sends
//! the requests runs. The driver sends the requests in rounds. A round requests `/livez` and
//! `/healthz`, and if no process listens there, a Service's health check node port. kube-proxy
//! reports that its rules are late if it has not applied a change of Services or endpoints in time.
//!
//! The health is a soft rule: it changes the rank of a node, and never leaves an address
//! unannounced. `fall` bad rounds in a row make kube-proxy unhealthy; a round is bad, for example,
//! if the rules are late. If no process listens, or no reply arrives in time, kube-proxy becomes
//! unhealthy only after [`UNREACHABLE_MAX`], because the kernel's rules need no process. Within
//! that time, no address leaves a node whose kube-proxy restarts, has not made its rules yet, or
//! gets too little processor time to reply.
//!
//! With [`KubeProxyMode::Auto`], a kube-proxy is expected until none was healthy for
//! [`EXPECTED_MAX`], neither on this node nor on another. Then a network plugin has replaced
//! kube-proxy, or each one has failed; in both cases all nodes are equal, so the health decides
//! nothing.

mod messages;
mod rule_updates;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use ferrolb_proto::api::KubeProxyState;
use jiff::Timestamp;

pub use rule_updates::RuleUpdates;

/// The time after which a kube-proxy that worked becomes unhealthy because no process listens, no
/// reply arrives in time, or it has no rules yet. Also the time for which its latest report on the
/// node's eligibility remains valid.
pub const UNREACHABLE_MAX: Duration = Duration::from_secs(10);
/// The time after the start of the speaker for which a kube-proxy that the speaker has not yet seen
/// working is unknown instead of unhealthy. Applies only if the node seems to have just booted:
/// its Node is not Ready, or gobgpd had no routes when the speaker started.
pub const STARTUP_MAX: Duration = Duration::from_secs(60);
/// The time for which a kube-proxy is expected after the latest healthy one, on any node, or after
/// the first reply of the one on this node.
pub const EXPECTED_MAX: Duration = Duration::from_secs(120);

/// How the speaker uses the health of kube-proxy (`--kube-proxy-health`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxyMode {
    /// The health affects the node's rank while a kube-proxy is expected.
    Auto,
    /// A node without a working kube-proxy is unhealthy.
    Required,
    /// The speaker sends no requests, and the health does not affect the node's rank.
    Off,
}

/// The settings of a [`KubeProxyMonitor`].
#[derive(Clone, Copy, Debug)]
pub struct KubeProxyConfig {
    /// How the speaker uses the health of kube-proxy.
    pub mode: KubeProxyMode,
    /// The number of consecutive bad rounds of requests after which kube-proxy becomes unhealthy.
    pub fall: u32,
    /// The number of consecutive good rounds of requests after which kube-proxy becomes healthy
    /// again.
    pub rise: u32,
}

/// A set of address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// True if the set contains IPv4.
    pub v4: bool,
    /// True if the set contains IPv6.
    pub v6: bool,
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            (false, false) => "no family",
        })
    }
}

/// The conditions, other than kube-proxy's replies, that affect its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KubeProxyContext {
    /// True if the Node of this speaker is Ready.
    pub ready: bool,
    /// True if another node reports that its kube-proxy was checked and works.
    pub healthy_elsewhere: bool,
    /// True if gobgpd had no routes when the speaker started. No traffic arrives by BGP yet, so
    /// there is time to look for a kube-proxy.
    pub started_without_routes: bool,
    /// The families of the announced addresses, for which kube-proxy must have rules.
    pub needed: Families,
}

/// kube-proxy's report on its rules for each address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyRules {
    /// True if the IPv4 rules are up to date, false if they are late; `None` if kube-proxy has not
    /// made any yet.
    pub v4: Option<bool>,
    /// True if the IPv6 rules are up to date, false if they are late; `None` if kube-proxy has not
    /// made any yet.
    pub v6: Option<bool>,
}

impl FamilyRules {
    /// Returns those of the `needed` families whose report equals `wanted`.
    fn families_with(self, wanted: Option<bool>, needed: Families) -> Families {
        Families { v4: needed.v4 && self.v4 == wanted, v6: needed.v6 && self.v6 == wanted }
    }
}

/// The result of `GET /livez` on kube-proxy's health server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LivezResult {
    /// kube-proxy replied.
    Replied {
        /// True for the status 200. False for the status 503: the rules of kube-proxy are late.
        live: bool,
        /// The report on the rules of each family; `None` if there is no such report, as before
        /// Kubernetes 1.33.
        rules: Option<FamilyRules>,
    },
    /// No process listens on the port.
    Refused,
    /// No reply arrived in time. Contains the error as a text for people.
    TimedOut(Box<str>),
    /// The connection failed, or the reply is not kube-proxy's. Contains the error as a text for
    /// people.
    Failed(Box<str>),
}

/// The results of one round of requests to kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRound {
    /// The time of the requests.
    pub time: Timestamp,
    /// The health server that received the requests.
    pub server: SocketAddr,
    /// The result of `GET /livez`.
    pub livez: LivezResult,
    /// `nodeEligible` in the reply to `GET /healthz`; `None` if absent.
    pub eligible: Option<bool>,
    /// `serviceProxyHealthy` in the reply of a Service's health check node port, requested if no
    /// process listens at `server`; `None` if absent.
    pub node_port_healthy: Option<bool>,
}

/// The outcome of one round of requests to kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundOutcome {
    /// kube-proxy works, and its rules are up to date.
    Good,
    /// kube-proxy does not work, its rules are late, or the reply is not kube-proxy's.
    Bad,
    /// kube-proxy runs, but has not made the rules of a needed family yet.
    Starting,
    /// No process listens on the port, and no health check node port replies for kube-proxy.
    Refused,
    /// No reply arrived in time.
    Timeout,
}

impl CheckRound {
    /// Returns the outcome of the round. `needed` are the families for which kube-proxy must have
    /// rules.
    #[must_use]
    pub fn outcome(&self, needed: Families) -> RoundOutcome {
        self.result(needed).outcome()
    }

    /// Returns whether at least one reply of the round came from a kube-proxy.
    const fn is_of_kube_proxy(&self) -> bool {
        matches!(self.livez, LivezResult::Replied { .. }) || self.node_port_healthy.is_some()
    }
}

/// The inputs of [`KubeProxyMonitor`].
#[derive(Clone, Debug)]
pub enum KubeProxyInput {
    /// The conditions other than the replies have changed.
    Context(KubeProxyContext),
    /// A round of requests has ended.
    Round(CheckRound),
}

/// The health of kube-proxy on this node, with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeProxyHealth {
    /// The state of kube-proxy's health.
    pub state: KubeProxyState,
    /// The reason as a text for people. The text changes only if the reason changes.
    pub message: Box<str>,
    /// True if kube-proxy reports that the node must not receive traffic, because the node is about
    /// to be deleted.
    pub ineligible: bool,
    /// The time of the latest good round, if kube-proxy has worked and does not work any more.
    pub last_healthy: Option<Timestamp>,
}

impl KubeProxyHealth {
    /// Returns whether kube-proxy's health lowers the rank of this node. An unknown health does so,
    /// too.
    #[must_use]
    pub const fn unhealthy(&self) -> bool {
        matches!(self.state, KubeProxyState::Unknown | KubeProxyState::Unhealthy)
    }

    /// Returns whether kube-proxy was checked and works.
    #[must_use]
    pub const fn checked(&self) -> bool {
        matches!(self.state, KubeProxyState::Healthy)
    }
}

/// The outcome and the message text of the latest round, and the time since which all rounds have
/// had this text.
#[derive(Clone, Debug)]
struct LastResult {
    outcome: RoundOutcome,
    text: Box<str>,
    since: Instant,
}

/// The state machine of kube-proxy's health on this node; see the module's documentation.
#[derive(Debug)]
pub struct KubeProxyMonitor {
    config: KubeProxyConfig,
    start: Instant,
    context: KubeProxyContext,
    /// True as soon as a round has ended, and either the Node is Ready or [`STARTUP_MAX`] has
    /// passed. From then on, a missing kube-proxy is reported.
    settled: bool,
    /// The time of the first reply of a kube-proxy on this node.
    found_at: Option<Instant>,
    /// The time of the latest good round on this node, or of a healthy kube-proxy on another one.
    healthy_at: Option<Instant>,
    /// The time of the latest good round while kube-proxy works.
    last_healthy: Option<Timestamp>,
    /// True if kube-proxy works; `None` if it has not worked since it is expected.
    works: Option<bool>,
    /// The number of consecutive good rounds, up to the latest one.
    good: u32,
    /// The number of bad rounds since the latest good one. A round without a reply, or in which
    /// kube-proxy is starting, is neither good nor bad. [`Hysteresis`] has only those two results,
    /// so it cannot be used here.
    ///
    /// [`Hysteresis`]: super::hysteresis::Hysteresis
    bad: u32,
    /// The time of the first round since the latest good one in which kube-proxy did not reply, or
    /// had no rules yet.
    unavailable_since: Option<Instant>,
    ineligible: bool,
    /// The time since which kube-proxy does not report whether the node is eligible.
    eligibility_unknown_since: Option<Instant>,
    last_result: Option<LastResult>,
    /// The text about a round that the reported message contains. The round may be an earlier one
    /// than the latest.
    reported_reason: Box<str>,
    reported: KubeProxyHealth,
    output: Option<KubeProxyHealth>,
}

impl KubeProxyMonitor {
    /// Creates a monitor that has no results yet. If the initial health differs from
    /// [`KubeProxyHealth::default`], the health is an output at once.
    #[must_use]
    pub fn new(config: KubeProxyConfig, now: Instant) -> Self {
        let mut monitor = Self {
            config,
            start: now,
            context: KubeProxyContext::default(),
            settled: false,
            found_at: None,
            healthy_at: None,
            last_healthy: None,
            works: None,
            good: 0,
            bad: 0,
            unavailable_since: None,
            ineligible: false,
            eligibility_unknown_since: None,
            last_result: None,
            reported_reason: Box::default(),
            reported: KubeProxyHealth::default(),
            output: None,
        };
        monitor.update_health(now);
        monitor
    }

    /// Returns the conditions of the latest [`KubeProxyInput::Context`].
    #[must_use]
    pub const fn context(&self) -> KubeProxyContext {
        self.context
    }

    fn state(&self, now: Instant) -> KubeProxyState {
        let started_without_routes = self.context.started_without_routes;
        let is_expected = self.config.mode == KubeProxyMode::Required
            || self.context.healthy_elsewhere
            || [self.found_at, self.healthy_at]
                .into_iter()
                .flatten()
                .any(|time| now.since(time) < EXPECTED_MAX);
        // A kube-proxy may still start. A Node stays Ready during a quick reboot, so its condition
        // proves nothing.
        let may_be_booting =
            started_without_routes && !is_expected && now < self.start + STARTUP_MAX;
        match (self.config.mode, self.works) {
            (KubeProxyMode::Off, _) => KubeProxyState::NotChecked,
            (_, Some(true)) => KubeProxyState::Healthy,
            (_, Some(false)) if is_expected => KubeProxyState::Unhealthy,
            (_, None) if !self.settled || may_be_booting => KubeProxyState::Unknown,
            (_, None) if is_expected => KubeProxyState::Unhealthy,
            _ => KubeProxyState::NotChecked,
        }
    }

    fn handle_round(&mut self, round: &CheckRound, now: Instant) {
        let result = round.result(self.context.needed);
        let (outcome, text) = (result.outcome(), result.to_string());
        if round.is_of_kube_proxy() {
            self.found_at.get_or_insert(now);
        }
        self.count_outcome(outcome, now);
        if outcome == RoundOutcome::Good {
            self.healthy_at = Some(now);
            if self.works == Some(true) {
                self.last_healthy = Some(round.time);
            }
        }
        if self.last_result.as_ref().is_none_or(|last| *last.text != *text) {
            self.last_result = Some(LastResult { outcome, text: text.into(), since: now });
        }
        match round.eligible {
            Some(eligible) => (self.ineligible, self.eligibility_unknown_since) = (!eligible, None),
            None => {
                let since = *self.eligibility_unknown_since.get_or_insert(now);
                self.ineligible &= now.since(since) < UNREACHABLE_MAX;
            }
        }
    }

    fn count_outcome(&mut self, outcome: RoundOutcome, now: Instant) {
        if outcome == RoundOutcome::Good {
            (self.bad, self.unavailable_since) = (0, None);
            self.good = self.good.saturating_add(1);
            if self.works.is_none() || self.good >= self.config.rise {
                self.works = Some(true);
            }
            return;
        }
        self.good = 0;
        let is_failing = if outcome == RoundOutcome::Bad {
            self.bad = self.bad.saturating_add(1);
            self.bad >= self.config.fall
        } else {
            now.since(*self.unavailable_since.get_or_insert(now)) >= UNREACHABLE_MAX
        };
        if is_failing && self.works.is_some() {
            self.works = Some(false);
        }
    }

    /// Computes the health, and queues it if it has changed. A new reason of an unchanged state
    /// must have lasted for [`UNREACHABLE_MAX`], so that alternating reasons do not each cause a
    /// status write.
    fn update_health(&mut self, now: Instant) {
        if self.context.healthy_elsewhere {
            self.healthy_at = Some(now);
        }
        let ready = self.context.ready || now >= self.start + STARTUP_MAX;
        self.settled |= ready && self.last_result.is_some();
        let state = self.state(now);
        if state == KubeProxyState::NotChecked {
            // As after the start of the speaker: the first good round counts.
            self.works = None;
        }
        if let Some(LastResult { outcome, text, since }) = &self.last_result {
            let supports_state =
                (*outcome == RoundOutcome::Good) == (state == KubeProxyState::Healthy);
            let is_reportable = state != self.reported.state
                || self.reported_reason.is_empty()
                || now.since(*since) >= UNREACHABLE_MAX;
            if supports_state && is_reportable {
                self.reported_reason.clone_from(text);
            }
        }
        let health = KubeProxyHealth {
            state,
            message: self.message(state),
            ineligible: self.ineligible,
            last_healthy: self.last_healthy.filter(|_| self.works != Some(true)),
        };
        if health != self.reported {
            self.reported = health.clone();
            self.output = Some(health);
        }
    }
}

impl Machine for KubeProxyMonitor {
    type Input = KubeProxyInput;
    /// The health after each change. A later output replaces an earlier one that was not polled
    /// yet.
    type Output = KubeProxyHealth;

    fn handle(&mut self, input: KubeProxyInput, now: Instant) {
        match input {
            KubeProxyInput::Context(context) => self.context = context,
            KubeProxyInput::Round(round) => self.handle_round(&round, now),
        }
        self.update_health(now);
    }

    fn tick(&mut self, now: Instant) {
        self.update_health(now);
    }

    fn poll(&mut self) -> Option<KubeProxyHealth> {
        self.output.take()
    }

    fn deadline(&self) -> Option<Instant> {
        let is_waiting =
            self.last_result.is_some() && self.reported.state == KubeProxyState::Unknown;
        (is_waiting && self.config.mode != KubeProxyMode::Off).then(|| self.start + STARTUP_MAX)
    }
}

#[cfg(test)]
mod tests;
