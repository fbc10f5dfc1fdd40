//! gRPC client of gobgpd. The client owns the connection; the driver's task makes one call at a
//! time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::bgp::Prefix;
use ferrolb_proto::facts::PeerLocation;
use ferrolb_proto::range::Family;
use ferrolb_speaker_core::gobgp::{
    BgpStep, ContentHash, GobgpError, ListedSession, ObservedState, PolicyConfig, family,
};
use ferrolb_speaker_core::plan::BgpIdentity;
use futures::{Stream, StreamExt, TryStreamExt};
use gobgp_proto as api;
use gobgp_proto::GoBgpServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::path::{mark, path, prefix};

/// Timeout of one call; listing ten thousand paths takes a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Names of the import policy and the export policy in GoBGP. Both policies exist at all times: if
/// an assigned policy did not exist, GoBGP would accept every route.
const IMPORT_POLICY: &str = "ferrolb-import";
const EXPORT_POLICY: &str = "ferrolb-export";
/// Name to which GoBGP assigns the policies of all sessions.
const GLOBAL_ASSIGNMENT: &str = "global";
/// The oldest GoBGP with a compatible API: major and minor version.
const VERSION_MIN: (u32, u32) = (4, 7);
/// Router address of a session that is never opened. gobgpd lists its own capabilities for that
/// session, and they contain its version.
const VERSION_PROBE_ADDRESS: &str = "127.255.255.254";
/// Error text with which gobgpd replies after its BGP server was stopped.
const STOPPED_ERROR: &str = "server stopped";

/// Connection to a running gobgpd.
pub(super) struct Client {
    calls: GoBgpServiceClient<Channel>,
}

impl Client {
    /// Connects to gobgpd's socket at this path.
    pub(super) async fn connect(path: &str) -> Result<Self, GobgpError> {
        let unreachable = |why: String| GobgpError::Unreachable { path: path.to_owned(), why };
        let endpoint = Endpoint::from_shared(format!("unix:{path}"))
            .map_err(|error| unreachable(error.to_string()))?;
        let channel = endpoint.connect_timeout(CALL_TIMEOUT).connect().await;
        let channel = channel.map_err(|error| unreachable(root_cause(&error)))?;
        Ok(Self { calls: GoBgpServiceClient::new(channel) })
    }

    /// Reads the whole state of gobgpd.
    pub(super) async fn read(&mut self) -> Result<ObservedState, GobgpError> {
        let response = with_timeout("GetBgp", self.calls.get_bgp(api::GetBgpRequest {})).await;
        let global = match response {
            Err(CallError { code: Code::Unimplemented, .. }) => {
                return Err(GobgpError::TooOld("of another major version".into()));
            }
            Err(CallError { code: Code::Unknown, why, .. }) if why == STOPPED_ERROR => {
                return Err(GobgpError::Stopped);
            }
            response => response?.global.unwrap_or_default(),
        };
        let mut known = ObservedState::default();
        if global.asn == 0 {
            return Ok(known);
        }
        let peers = self.peers().await?;
        known.peers = peers.iter().map(|it| (it.location.clone(), it.observed())).collect();
        let policies = self.policies().await?;
        let has_policy = |name: &str| policies.iter().any(|policy| policy.name == name);
        let router_id = global
            .router_id
            .parse()
            .ok()
            .filter(|_| has_policy(IMPORT_POLICY) && has_policy(EXPORT_POLICY));
        // A gobgpd without both policies counts as not started: a speaker may have stopped before
        // it had configured gobgpd completely.
        let Some(router_id) = router_id else { return Ok(known) };
        self.assign_policies().await?;
        known.identity = Some(BgpIdentity { asn: global.asn, router_id });
        let statements = policies.iter().flat_map(|policy| &policy.statements);
        known.classes = statements
            .filter_map(|statement| {
                Some((ContentHash::from_statement_name(&statement.name)?, None))
            })
            .collect();
        for family in [Family::V4, Family::V6] {
            for (prefix, mark) in self.paths(family).await? {
                known.paths.insert(prefix, mark);
            }
        }
        Ok(known)
    }

    /// Lists gobgpd's sessions.
    pub(super) async fn peers(&mut self) -> Result<Vec<ListedSession>, GobgpError> {
        let peers = list("ListPeer", self.calls.list_peer(api::ListPeerRequest {})).await?;
        Ok(peers.into_iter().filter_map(|response| ListedSession::read(response.peer?)).collect())
    }

    async fn policies(&mut self) -> Result<Vec<api::Policy>, GobgpError> {
        let policies =
            list("ListPolicy", self.calls.list_policy(api::ListPolicyRequest {})).await?;
        Ok(policies.into_iter().filter_map(|response| response.policy).collect())
    }

    async fn paths(
        &mut self,
        address_family: Family,
    ) -> Result<BTreeMap<Prefix, Option<ContentHash>>, GobgpError> {
        let table_type = api::TableType::Global as i32;
        let request = api::ListPathRequest { table_type, family: Some(family(address_family)) };
        let paths = list("ListPath", self.calls.list_path(request)).await?;
        let destinations = paths.into_iter().filter_map(|response| response.destination);
        Ok(destinations
            .filter_map(|destination| Some((prefix(&destination.prefix)?, mark(&destination))))
            .collect())
    }

    /// Checks that the version in gobgpd's OPENs (`GoBGP/4.8.0`) is supported. No call returns the
    /// version. Therefore this method adds a session that is never opened, and reads its
    /// capabilities.
    pub(super) async fn check_version(&mut self) -> Result<(), GobgpError> {
        let delete_probe = api::DeletePeerRequest { address: VERSION_PROBE_ADDRESS.to_owned() };
        // An earlier speaker that stopped during this check may have left the session in gobgpd.
        let _ = with_timeout("DeletePeer", self.calls.delete_peer(delete_probe.clone())).await;
        let conf = api::PeerConf {
            neighbor_address: VERSION_PROBE_ADDRESS.to_owned(),
            peer_asn: 1,
            admin_down: true,
            send_software_version: true,
            ..api::PeerConf::default()
        };
        let peer = api::Peer { conf: Some(conf), ..api::Peer::default() };
        with_timeout("AddPeer", self.calls.add_peer(api::AddPeerRequest { peer: Some(peer) }))
            .await?;
        let peers = self.peers().await?;
        with_timeout("DeletePeer", self.calls.delete_peer(delete_probe)).await?;
        let probe: Option<IpAddr> = VERSION_PROBE_ADDRESS.parse().ok();
        let is_probe = |session: &&ListedSession| matches!(session.location, PeerLocation::Address(address) if Some(address) == probe);
        let probe_version = peers
            .iter()
            .find(is_probe)
            .and_then(|session| version(&session.state()))
            .unwrap_or_default();
        let minor = probe_version.strip_prefix("GoBGP/").and_then(|version| {
            let mut numbers = version.split('.').map_while(|number| number.parse().ok());
            Some((numbers.next()?, numbers.next()?))
        });
        if minor.is_some_and(|version| version >= VERSION_MIN) {
            Ok(())
        } else {
            Err(GobgpError::TooOld(probe_version))
        }
    }

    /// Stops gobgpd's BGP server, which ends all sessions. Sessions with graceful restart end
    /// without a NOTIFICATION, so that their routers keep the routes. This gobgpd process cannot be
    /// used afterwards.
    pub(super) async fn stop(&mut self) -> Result<(), GobgpError> {
        let request = api::StopBgpRequest { allow_graceful_restart: true };
        Ok(with_timeout("StopBgp", self.calls.stop_bgp(request)).await.map(drop)?)
    }

    /// Executes one step of the reconciliation.
    pub(super) async fn execute(&mut self, step: &BgpStep) -> Result<(), GobgpError> {
        match step {
            BgpStep::Start(identity) => self.start(identity).await?,
            BgpStep::RemoveSession(location) => self.remove(location).await?,
            BgpStep::SetPolicies(classes) => {
                self.set_policies(classes.iter().map(|class| &**class)).await?
            }
            BgpStep::Announce(paths) => {
                self.add_paths(
                    paths.iter().map(|(prefix, mark)| path(*prefix, Some(*mark))).collect(),
                )
                .await?;
            }
            BgpStep::Withdraw(paths) => {
                self.add_paths(paths.iter().map(|prefix| path(*prefix, None)).collect()).await?;
            }
            BgpStep::AddSession(_, config) => {
                let request = api::AddPeerRequest { peer: Some(config.with_bfd(false)) };
                rejection(with_timeout("AddPeer", self.calls.add_peer(request)).await)?;
            }
            BgpStep::SetBfd(_, config, on) => {
                let request = api::UpdatePeerRequest { peer: Some(config.with_bfd(*on)) };
                rejection(with_timeout("UpdatePeer", self.calls.update_peer(request)).await)?;
            }
        }
        Ok(())
    }

    async fn start(&mut self, identity: &BgpIdentity) -> Result<(), GobgpError> {
        let global = api::Global {
            asn: identity.asn,
            router_id: identity.router_id.to_string(),
            listen_port: -1,
        };
        with_timeout(
            "StartBgp",
            self.calls.start_bgp(api::StartBgpRequest { global: Some(global) }),
        )
        .await?;
        self.set_policies([].into_iter()).await?;
        self.assign_policies().await
    }

    async fn set_policies(
        &mut self,
        classes: impl Iterator<Item = &PolicyConfig> + Clone,
    ) -> Result<(), GobgpError> {
        let conditions = api::Conditions {
            route_type: api::conditions::RouteType::Local as i32,
            ..api::Conditions::default()
        };
        let accept = api::Actions {
            route_action: api::RouteAction::Accept as i32,
            ..api::Actions::default()
        };
        let own = api::Statement {
            name: "ferrolb-own".to_owned(),
            conditions: Some(conditions),
            actions: Some(accept),
        };
        let policies = vec![
            api::Policy { name: IMPORT_POLICY.to_owned(), statements: vec![own] },
            api::Policy {
                name: EXPORT_POLICY.to_owned(),
                statements: classes.clone().flat_map(|class| &class.statements).cloned().collect(),
            },
        ];
        let defined_sets = classes.flat_map(|class| &class.sets).cloned().collect();
        let request = api::SetPoliciesRequest { defined_sets, policies };
        Ok(with_timeout("SetPolicies", self.calls.set_policies(request)).await.map(drop)?)
    }

    /// Assigns the import and the export policy to all sessions. GoBGP rejects routes that no
    /// policy matches.
    async fn assign_policies(&mut self) -> Result<(), GobgpError> {
        for (name, direction) in [
            (IMPORT_POLICY, api::PolicyDirection::Import),
            (EXPORT_POLICY, api::PolicyDirection::Export),
        ] {
            let assignment = api::PolicyAssignment {
                name: GLOBAL_ASSIGNMENT.to_owned(),
                direction: direction as i32,
                policies: vec![api::Policy { name: name.to_owned(), statements: Vec::new() }],
                default_action: api::RouteAction::Reject as i32,
            };
            let request = api::SetPolicyAssignmentRequest { assignment: Some(assignment) };
            with_timeout("SetPolicyAssignment", self.calls.set_policy_assignment(request)).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, location: &PeerLocation) -> Result<(), GobgpError> {
        // An unnumbered session is deleted by the router address that GoBGP has discovered. If it
        // were deleted by its interface, GoBGP would look for the router in the kernel's neighbor
        // table, which may not contain it any more.
        let address = match location {
            PeerLocation::Address(address) => Some(address.to_string()),
            PeerLocation::Interface(_) => {
                let session =
                    self.peers().await?.into_iter().find(|session| session.location == *location);
                session
                    .map(|session| session.state().neighbor_address)
                    .filter(|address| !address.is_empty())
            }
        };
        let Some(address) = address else { return Ok(()) };
        let request = api::DeletePeerRequest { address };
        Ok(with_timeout("DeletePeer", self.calls.delete_peer(request)).await.map(drop)?)
    }

    async fn add_paths(&mut self, paths: Vec<api::Path>) -> Result<(), GobgpError> {
        let request =
            api::AddPathStreamRequest { table_type: api::TableType::Global as i32, paths };
        let requests = futures::stream::iter([request]);
        Ok(with_timeout("AddPathStream", self.calls.add_path_stream(requests)).await.map(drop)?)
    }

    /// Returns a stream with an empty item for each change of a session; [`Client::peers`] returns
    /// the new states. The stream ends when gobgpd ends.
    pub(super) fn changes(&self) -> impl Stream<Item = ()> + use<> {
        let mut calls = self.calls.clone();
        let request = api::WatchEventRequest { peer: Some(api::watch_event_request::Peer {}) };
        // gobgpd sends the response only with the first change. Therefore the stream awaits the
        // response.
        let response = futures::stream::once(async move { calls.watch_event(request).await });
        let changes = response
            .filter_map(|response| std::future::ready(response.ok()))
            .flat_map(tonic::Response::into_inner);
        changes.take_while(|change| std::future::ready(change.is_ok())).map(drop)
    }
}

/// Converts the result of a call that adds a session or changes its BFD. A rejection by gobgpd
/// becomes [`GobgpError::Rejected`].
fn rejection<T>(response: Result<T, CallError>) -> Result<(), GobgpError> {
    match response {
        Err(CallError { code: Code::Unknown, why, .. }) => Err(GobgpError::Rejected(why)),
        response => Ok(response.map(drop)?),
    }
}

/// A failed call to gobgpd.
struct CallError {
    call: &'static str,
    code: Code,
    why: String,
}

impl From<CallError> for GobgpError {
    fn from(CallError { call, why, .. }: CallError) -> Self {
        Self::Call { call, why }
    }
}

async fn with_timeout<T>(
    call: &'static str,
    response: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    limited(call, "no response within", response).await.map(tonic::Response::into_inner)
}

/// Returns all messages of the streamed response to a call.
async fn list<T>(
    call: &'static str,
    response: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, Status>>,
) -> Result<Vec<T>, CallError> {
    collect(call, with_timeout(call, response).await?).await
}

/// Collects all messages of a streamed response.
async fn collect<T>(
    call: &'static str,
    response: tonic::Streaming<T>,
) -> Result<Vec<T>, CallError> {
    limited(call, "incomplete response after", response.try_collect()).await
}

/// Waits for a part of a call, at most for [`CALL_TIMEOUT`]. `problem` precedes that time in the
/// error.
async fn limited<T>(
    call: &'static str,
    problem: &str,
    part: impl Future<Output = Result<T, Status>>,
) -> Result<T, CallError> {
    let timeout = |_| Status::deadline_exceeded(format!("{problem} {CALL_TIMEOUT:?}"));
    let result = tokio::time::timeout(CALL_TIMEOUT, part).await.map_err(timeout).flatten();
    result.map_err(|status| CallError {
        call,
        code: status.code(),
        why: status.message().to_owned(),
    })
}

fn version(state: &api::PeerState) -> Option<String> {
    state.local_cap.iter().find_map(|capability| match capability.cap.as_ref()? {
        api::capability::Cap::SoftwareVersion(version) => Some(version.software_version.clone()),
    })
}

/// Returns the innermost cause of an error: the part of the message from which an operator can
/// derive an action.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
