//! The calls to gobgpd. It owns the connection; the driver's task calls it, one call at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::bgp::Prefix;
use ferrolb_proto::facts::PeerPlace;
use ferrolb_proto::range::Family;
use futures::{Stream, StreamExt, TryStreamExt};
use gobgp_proto as api;
use gobgp_proto::GoBgpServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::steps::{Has, Known, Step};
use crate::plan::{ClassOrder, Identity, Mark, RESTART_TIME_S, bgp_family as family};

/// How long one call may take: ten thousand paths are listed in a second.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The policies, as GoBGP knows them by name. Both are always there: one that an assignment names and that is gone would let everything pass.
const IMPORT: &str = "ferrolb-import";
const EXPORT: &str = "ferrolb-export";
/// What GoBGP calls the policies of all sessions.
const GLOBAL: &str = "global";
/// The oldest GoBGP whose API is the one that is spoken here: major and minor.
const VERSION_MIN: (u32, u32) = (4, 7);
/// A session that is never opened: what this side would say there names its version.
const PROBE: &str = "127.255.255.254";
/// What one answers that was stopped.
const STOPPED: &str = "server stopped";

/// Why gobgpd cannot be used, for a person.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody is there.
    #[error("no gobgpd answers at {path}: {why}")]
    Absent { path: String, why: String },
    /// It is another API's, or too old.
    #[error("the gobgpd is {0}: install GoBGP 4.7 or newer")]
    TooOld(String),
    /// It was stopped, and cannot be started again.
    #[error(
        "gobgpd was stopped for another to take its place, for which routers keep routes for {RESTART_TIME_S} s where graceful restart is on: if none has come by \
         then, restart it"
    )]
    Stopped,
    /// It would not have a session, or not with BFD.
    #[error("{0}")]
    Refused(String),
    /// A call failed that should not.
    #[error("gobgpd: {call}: {why}")]
    Call { call: &'static str, why: String },
}

/// A gobgpd that answers.
pub(super) struct Client {
    calls: GoBgpServiceClient<Channel>,
}

/// A session as gobgpd tells it.
pub(super) struct Told {
    pub(super) place: PeerPlace,
    pub(super) peer: api::Peer,
}

impl Told {
    fn read(peer: api::Peer) -> Option<Self> {
        let conf = peer.conf.as_ref()?;
        let place = if conf.neighbor_interface.is_empty() {
            PeerPlace::Address(conf.neighbor_address.parse().ok()?)
        } else {
            PeerPlace::Interface(conf.neighbor_interface.as_str().into())
        };
        Some(Self { place, peer })
    }

    fn has(&self) -> Has {
        let description = self.peer.conf.as_ref().map_or("", |conf| &conf.description).into();
        Has { description, established: self.established(), bfd: self.peer.bfd.filter(|bfd| bfd.enabled) }
    }

    pub(super) fn established(&self) -> bool {
        self.state().session_state() == api::peer_state::SessionState::Established
    }

    pub(super) fn state(&self) -> api::PeerState {
        self.peer.state.clone().unwrap_or_default()
    }
}

impl Client {
    /// Connects to the socket of this path.
    pub(super) async fn connect(path: &str) -> Result<Self, Error> {
        let absent = |why: String| Error::Absent { path: path.to_owned(), why };
        let endpoint = Endpoint::from_shared(format!("unix:{path}")).map_err(|error| absent(error.to_string()))?;
        let channel = endpoint.connect_timeout(CALL_MAX).connect().await;
        let channel = channel.map_err(|error| absent(root(&error)))?;
        Ok(Self { calls: GoBgpServiceClient::new(channel) })
    }

    /// What it has.
    pub(super) async fn read(&mut self) -> Result<Known, Error> {
        let answer = timed("GetBgp", self.calls.get_bgp(api::GetBgpRequest {})).await;
        let global = match answer {
            Err(Failed { code: Code::Unimplemented, .. }) => {
                return Err(Error::TooOld("of another major version".into()));
            }
            Err(Failed { code: Code::Unknown, why, .. }) if why == STOPPED => return Err(Error::Stopped),
            answer => answer?.global.unwrap_or_default(),
        };
        let mut known = Known::default();
        if global.asn == 0 {
            return Ok(known);
        }
        known.peers = sessions(&self.peers().await?);
        let policies = self.policies().await?;
        let has = |name: &str| policies.iter().any(|policy| policy.name == name);
        let router_id = global.router_id.parse().ok().filter(|_| has(IMPORT) && has(EXPORT));
        // One without the policies is as good as none: it begins anew.
        let Some(router_id) = router_id else { return Ok(known) };
        self.assign().await?;
        known.identity = Some(Identity { asn: global.asn, router_id });
        let statements = policies.iter().flat_map(|policy| &policy.statements);
        known.classes = statements.filter_map(|statement| Some((Mark::of_statement(&statement.name)?, None))).collect();
        for family in [Family::V4, Family::V6] {
            known.paths.extend(self.paths(family).await?);
        }
        Ok(known)
    }

    /// Its sessions.
    pub(super) async fn peers(&mut self) -> Result<Vec<Told>, Error> {
        let answer = timed("ListPeer", self.calls.list_peer(api::ListPeerRequest {})).await?;
        let peers = all("ListPeer", answer).await?;
        Ok(peers.into_iter().filter_map(|answer| Told::read(answer.peer?)).collect())
    }

    async fn policies(&mut self) -> Result<Vec<api::Policy>, Error> {
        let answer = timed("ListPolicy", self.calls.list_policy(api::ListPolicyRequest {})).await?;
        Ok(all("ListPolicy", answer).await?.into_iter().filter_map(|answer| answer.policy).collect())
    }

    async fn paths(&mut self, of: Family) -> Result<BTreeMap<Prefix, Option<Mark>>, Error> {
        let table_type = api::TableType::Global as i32;
        let request = api::ListPathRequest { table_type, family: Some(family(of)) };
        let answer = timed("ListPath", self.calls.list_path(request)).await?;
        let destinations = all("ListPath", answer).await?.into_iter().filter_map(|answer| answer.destination);
        Ok(destinations.filter_map(|destination| Some((prefix(&destination.prefix)?, mark(&destination)))).collect())
    }

    /// The first words of the version that its OPENs carry: `GoBGP/4.8.0`.
    pub(super) async fn check_version(&mut self) -> Result<(), Error> {
        let gone = api::DeletePeerRequest { address: PROBE.to_owned() };
        // Perhaps it is there from a speaker that ended in the middle of this.
        let _ = timed("DeletePeer", self.calls.delete_peer(gone.clone())).await;
        let conf = api::PeerConf {
            neighbor_address: PROBE.to_owned(),
            peer_asn: 1,
            admin_down: true,
            send_software_version: true,
            ..api::PeerConf::default()
        };
        let peer = api::Peer { conf: Some(conf), ..api::Peer::default() };
        timed("AddPeer", self.calls.add_peer(api::AddPeerRequest { peer: Some(peer) })).await?;
        let peers = self.peers().await?;
        timed("DeletePeer", self.calls.delete_peer(gone)).await?;
        let probe: Option<IpAddr> = PROBE.parse().ok();
        let is_probe = |told: &&Told| matches!(told.place, PeerPlace::Address(address) if Some(address) == probe);
        let said = peers.iter().find(is_probe).and_then(|told| version(&told.state())).unwrap_or_default();
        let minor = said.strip_prefix("GoBGP/").and_then(|version| {
            let mut numbers = version.split('.').map_while(|number| number.parse().ok());
            Some((numbers.next()?, numbers.next()?))
        });
        if minor.is_some_and(|version| version >= VERSION_MIN) { Ok(()) } else { Err(Error::TooOld(said)) }
    }

    /// Ends all sessions, those with graceful restart without a word: their routers keep the routes. It is of no use any more.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let request = api::StopBgpRequest { allow_graceful_restart: true };
        Ok(timed("StopBgp", self.calls.stop_bgp(request)).await.map(drop)?)
    }

    /// Does one step.
    pub(super) async fn act(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Start(identity) => self.start(identity).await?,
            Step::Remove(place) => self.remove(place).await?,
            Step::Policies(classes) => self.set_policies(classes.iter().map(|class| &**class)).await?,
            Step::Announce(paths) => {
                self.add_paths(paths.iter().map(|(prefix, mark)| path(*prefix, Some(*mark))).collect()).await?;
            }
            Step::Withdraw(paths) => {
                self.add_paths(paths.iter().map(|prefix| path(*prefix, None)).collect()).await?;
            }
            Step::Add(_, order) => {
                let request = api::AddPeerRequest { peer: Some(order.watched(false)) };
                taken(timed("AddPeer", self.calls.add_peer(request)).await)?;
            }
            Step::Watch(_, order, on) => {
                let request = api::UpdatePeerRequest { peer: Some(order.watched(*on)) };
                taken(timed("UpdatePeer", self.calls.update_peer(request)).await)?;
            }
        }
        Ok(())
    }

    async fn start(&mut self, identity: &Identity) -> Result<(), Error> {
        let global = api::Global { asn: identity.asn, router_id: identity.router_id.to_string(), listen_port: -1 };
        timed("StartBgp", self.calls.start_bgp(api::StartBgpRequest { global: Some(global) })).await?;
        self.set_policies([].into_iter()).await?;
        self.assign().await
    }

    async fn set_policies(&mut self, classes: impl Iterator<Item = &ClassOrder> + Clone) -> Result<(), Error> {
        let conditions =
            api::Conditions { route_type: api::conditions::RouteType::Local as i32, ..api::Conditions::default() };
        let accept = api::Actions { route_action: api::RouteAction::Accept as i32, ..api::Actions::default() };
        let own =
            api::Statement { name: "ferrolb-own".to_owned(), conditions: Some(conditions), actions: Some(accept) };
        let policies = vec![
            api::Policy { name: IMPORT.to_owned(), statements: vec![own] },
            api::Policy {
                name: EXPORT.to_owned(),
                statements: classes.clone().flat_map(|class| &class.statements).cloned().collect(),
            },
        ];
        let defined_sets = classes.flat_map(|class| &class.sets).cloned().collect();
        let request = api::SetPoliciesRequest { defined_sets, policies };
        Ok(timed("SetPolicies", self.calls.set_policies(request)).await.map(drop)?)
    }

    /// Both policies decide on everything, and reject what they do not name.
    async fn assign(&mut self) -> Result<(), Error> {
        for (name, direction) in [(IMPORT, api::PolicyDirection::Import), (EXPORT, api::PolicyDirection::Export)] {
            let assignment = api::PolicyAssignment {
                name: GLOBAL.to_owned(),
                direction: direction as i32,
                policies: vec![api::Policy { name: name.to_owned(), statements: Vec::new() }],
                default_action: api::RouteAction::Reject as i32,
            };
            let request = api::SetPolicyAssignmentRequest { assignment: Some(assignment) };
            timed("SetPolicyAssignment", self.calls.set_policy_assignment(request)).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, place: &PeerPlace) -> Result<(), Error> {
        // An unnumbered session goes by the address that it found: by its link it would be looked for among the neighbours, who may be gone.
        let address = match place {
            PeerPlace::Address(address) => Some(address.to_string()),
            PeerPlace::Interface(_) => {
                let told = self.peers().await?.into_iter().find(|told| told.place == *place);
                told.map(|told| told.state().neighbor_address).filter(|address| !address.is_empty())
            }
        };
        let Some(address) = address else { return Ok(()) };
        let request = api::DeletePeerRequest { address };
        Ok(timed("DeletePeer", self.calls.delete_peer(request)).await.map(drop)?)
    }

    async fn add_paths(&mut self, paths: Vec<api::Path>) -> Result<(), Error> {
        let request = api::AddPathStreamRequest { table_type: api::TableType::Global as i32, paths };
        let requests = futures::stream::iter([request]);
        Ok(timed("AddPathStream", self.calls.add_path_stream(requests)).await.map(drop)?)
    }

    /// Each change of a session; what it says comes from [`Client::peers`], which knows more. Ends when gobgpd does.
    pub(super) fn changes(&self) -> impl Stream<Item = ()> + use<> {
        let mut calls = self.calls.clone();
        let request = api::WatchEventRequest { peer: Some(api::watch_event_request::Peer {}) };
        // It answers with the first change.
        let answer = futures::stream::once(async move { calls.watch_event(request).await });
        let changes = answer.filter_map(|answer| std::future::ready(answer.ok())).flat_map(tonic::Response::into_inner);
        changes.take_while(|change| std::future::ready(change.is_ok())).map(drop)
    }
}

/// The sessions of a list, as [`Known`] has them.
pub(super) fn sessions(told: &[Told]) -> BTreeMap<PeerPlace, Has> {
    told.iter().map(|told| (told.place.clone(), told.has())).collect()
}

/// What came of asking for a session, or for its BFD.
fn taken<T>(answer: Result<T, Failed>) -> Result<(), Error> {
    match answer {
        Err(Failed { code: Code::Unknown, why, .. }) => Err(Error::Refused(why)),
        answer => Ok(answer.map(drop)?),
    }
}

/// A call that failed.
struct Failed {
    call: &'static str,
    code: Code,
    why: String,
}

impl Failed {
    fn of(call: &'static str, status: &Status) -> Self {
        Self { call, code: status.code(), why: status.message().to_owned() }
    }
}

impl From<Failed> for Error {
    fn from(Failed { call, why, .. }: Failed) -> Self {
        Self::Call { call, why }
    }
}

async fn timed<T>(
    call: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(CALL_MAX, answer).await {
        Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| Failed::of(call, &status)),
        Err(_) => Err(Failed { call, code: Code::DeadlineExceeded, why: format!("no answer within {CALL_MAX:?}") }),
    }
}

/// Everything that a call answers.
async fn all<T>(call: &'static str, answer: tonic::Streaming<T>) -> Result<Vec<T>, Failed> {
    match tokio::time::timeout(CALL_MAX, answer.try_collect()).await {
        Ok(all) => all.map_err(|status| Failed::of(call, &status)),
        Err(_) => Err(Failed { call, code: Code::DeadlineExceeded, why: format!("not all within {CALL_MAX:?}") }),
    }
}

/// A path with a mark, or one that goes.
fn path(prefix: Prefix, mark: Option<Mark>) -> api::Path {
    use api::attribute::Attr;
    let unspecified = match prefix.family() {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    };
    let marks =
        mark.map(|mark| Attr::LargeCommunities(api::LargeCommunitiesAttribute { communities: vec![mark.community()] }));
    let attributes = [
        Attr::Origin(api::OriginAttribute { origin: 0 }),
        Attr::NextHop(api::NextHopAttribute { next_hop: unspecified.to_owned() }),
        // Of the last resort, unless a statement says more; routers of another AS are not told.
        Attr::LocalPref(api::LocalPrefAttribute { local_pref: 0 }),
    ];
    let nlri = api::IpAddressPrefix { prefix_len: prefix.length().into(), prefix: prefix.network().to_string() };
    api::Path {
        nlri: Some(api::Nlri { nlri: Some(api::nlri::Nlri::Prefix(nlri)) }),
        pattrs: attributes.into_iter().chain(marks).map(|attr| api::Attribute { attr: Some(attr) }).collect(),
        is_withdraw: mark.is_none(),
        family: Some(family(prefix.family())),
    }
}

fn prefix(text: &str) -> Option<Prefix> {
    let (network, length) = text.split_once('/')?;
    Some(Prefix::of(network.parse().ok()?, length.parse().ok()?))
}

fn mark(destination: &api::Destination) -> Option<Mark> {
    let attributes = destination.paths.iter().flat_map(|path| &path.pattrs);
    attributes.filter_map(|attribute| attribute.attr.as_ref()).find_map(|attr| match attr {
        api::attribute::Attr::LargeCommunities(large) => large.communities.iter().find_map(Mark::read),
        api::attribute::Attr::Origin(_) | api::attribute::Attr::NextHop(_) | api::attribute::Attr::LocalPref(_) => None,
    })
}

fn version(state: &api::PeerState) -> Option<String> {
    state.local_cap.iter().find_map(|capability| match capability.cap.as_ref()? {
        api::capability::Cap::SoftwareVersion(version) => Some(version.software_version.clone()),
    })
}

/// The innermost of an error's causes: what a person can do something about.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
