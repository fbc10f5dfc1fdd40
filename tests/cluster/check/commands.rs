//! Commands of several causes: Nodes without a machine, a BGPPeer that selects them, and a user.

/// Returns the commands that create two Nodes and their SpeakerStatuses.
macro_rules! make_node {
    () => {
        r#"kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Node
metadata: {name: node8}
---
apiVersion: v1
kind: Node
metadata: {name: node9}
---
apiVersion: ferrolb.io/v1beta1
kind: SpeakerStatus
metadata: {name: node8, namespace: ferrolb-system}
---
apiVersion: ferrolb.io/v1beta1
kind: SpeakerStatus
metadata: {name: node9, namespace: ferrolb-system}
EOF
kubectl -n ferrolb-system patch fspeaker node8 --subresource=status --type=merge -p '{"status": {
"dataPath": {"state": "NotChecked", "message": "no reply", "lastHealthy": "2026-11-30T12:04:00Z"},
"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:08", "up": true, "heard": ["node9"]}]}}'
kubectl -n ferrolb-system patch fspeaker node9 --subresource=status --type=merge -p '{"status": {
"dataPath": {"state": "Unhealthy", "message": "no reply"},
"bgp": {"established": "0/1", "sessions": [{"peer": "tor", "state": "Active",
"issues": [{"reason": "BadPeerAS", "message": "the router is in AS 64999"}]}]},
"interfaces": [
{"name": "eth0", "mac": "02:00:00:00:00:09", "up": true, "heard": ["node1", "node8"], "unheard": ["node1"],
"addresses": ["172.30.0.250"], "lateHellos": {"milliseconds": 1050, "detectionMilliseconds": 1190},
"issues": [{"address": "172.30.0.250", "reason": "AddressConflict", "mac": "02:00:00:00:00:0a"}]},
{"name": "eth1", "mac": "02:00:00:00:01:09", "up": true, "subnets": ["172.30.0.0/24"]}]}}'
"#
    };
}

/// Returns the commands that delete the Nodes and their SpeakerStatuses.
macro_rules! undo_node {
    () => {
        "kubectl delete node node8 node9; kubectl -n ferrolb-system delete fspeaker node8 node9\n"
    };
}

/// Creates two Nodes.
pub(super) const MAKE_NODE: &str = make_node!();
pub(super) const UNDO_NODE: &str = undo_node!();

pub(super) const MAKE_PEER: &str = concat!(
    make_node!(),
    "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta2
kind: BGPPeer
metadata: {name: tor, namespace: ferrolb-system}
spec: {myASN: 64512, peerASN: 64500, peerAddress: 172.30.0.99}
EOF"
);
pub(super) const UNDO_PEER: &str =
    concat!(undo_node!(), "kubectl -n ferrolb-system delete fpeer tor");

/// Writes the kubeconfig file of a user with the permissions of a speaker.
pub(super) const MAKE_USER: &str = r#"kubectl config view --raw > "$HELM_DATA_HOME.kubeconfig"
kubectl --kubeconfig "$HELM_DATA_HOME.kubeconfig" config set-credentials limited \
"--token=$(kubectl -n ferrolb-system create token speaker)"
kubectl --kubeconfig "$HELM_DATA_HOME.kubeconfig" config set-context --current --user=limited"#;
