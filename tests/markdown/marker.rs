//! Markers of code blocks: instructions for tests, in an HTML comment on the line before a block.

use crate::block::BlockError;
use std::fmt;

/// Environment that a block needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Helm and kustomize without a cluster.
    Install,
    /// Three nodes with FerroLB and layer 2, a client on the LAN, and web pods on each node.
    Lab,
    /// The same nodes, each with a gobgpd, and an FRR router.
    Bgp,
    /// Nodes whose kubelets run pods.
    Kubeadm,
}

impl Topology {
    pub const ALL: [Self; 4] = [Self::Install, Self::Lab, Self::Bgp, Self::Kubeadm];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Lab => "lab",
            Self::Bgp => "bgp",
            Self::Kubeadm => "kubeadm",
        }
    }

    /// Returns the topologies whose blocks also run in this one, so that each block finds the
    /// objects of the blocks before it.
    pub const fn includes(self) -> &'static [Self] {
        match self {
            Self::Install => &[Self::Install],
            Self::Lab => &[Self::Lab],
            Self::Bgp => &[Self::Lab, Self::Bgp],
            Self::Kubeadm => &[Self::Lab, Self::Kubeadm],
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Host of a topology on which a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The client of the topology, like the computer of an administrator.
    Client(Topology),
    /// The first node of the topology `lab`.
    Node,
    /// The router of the topology `bgp`.
    Router,
}

impl Place {
    pub const ALL: [Self; 6] = [
        Self::Client(Topology::Install),
        Self::Client(Topology::Lab),
        Self::Client(Topology::Bgp),
        Self::Client(Topology::Kubeadm),
        Self::Node,
        Self::Router,
    ];

    /// Returns the name in a marker: `run: lab`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client(topology) => topology.name(),
            Self::Node => "node",
            Self::Router => "router",
        }
    }

    pub const fn topology(self) -> Topology {
        match self {
            Self::Client(topology) => topology,
            Self::Node => Topology::Lab,
            Self::Router => Topology::Bgp,
        }
    }
}

/// Instruction for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    Run(Place),
    /// Reason why no test runs the commands.
    NotRun(String),
    /// Reason why no test applies the YAML.
    NotApplied(String),
    /// Values of the Helm chart.
    HelmValues,
}

/// Parses the line before a block. `None`: the line is no HTML comment.
pub(crate) fn parse(line: &str) -> Result<Option<Marker>, BlockError> {
    let comment = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
    let Some(comment) = comment.map(str::trim) else { return Ok(None) };
    let (key, value) = comment.split_once(':').unwrap_or((comment, ""));
    let value = value.trim();
    let reason = || match value {
        "" => Err(BlockError::NoReason(comment.to_owned())),
        reason => Ok(reason.to_owned()),
    };
    let marker = match key.trim() {
        "run" => {
            let place = Place::ALL.into_iter().find(|place| place.name() == value);
            Marker::Run(place.ok_or_else(|| BlockError::UnknownPlace(value.to_owned()))?)
        }
        "not run" => Marker::NotRun(reason()?),
        "not applied" => Marker::NotApplied(reason()?),
        "helm values" if value.is_empty() => Marker::HelmValues,
        _ => return Err(BlockError::UnknownMarker(comment.to_owned())),
    };
    Ok(Some(marker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Page;

    #[test]
    fn only_a_comment_on_the_line_before_a_block_is_its_marker() {
        for (before, expect) in [
            ("<!-- run: lab -->", Some(Marker::Run(Place::Client(Topology::Lab)))),
            ("   <!--run: bgp-->", Some(Marker::Run(Place::Client(Topology::Bgp)))),
            ("<!-- run: kubeadm -->", Some(Marker::Run(Place::Client(Topology::Kubeadm)))),
            ("<!-- run: install -->", Some(Marker::Run(Place::Client(Topology::Install)))),
            ("<!-- run: node -->", Some(Marker::Run(Place::Node))),
            ("<!-- run: router -->", Some(Marker::Run(Place::Router))),
            ("<!-- not run: a: b -->", Some(Marker::NotRun("a: b".to_owned()))),
            ("<!-- not applied: config file -->", Some(Marker::NotApplied("config file".into()))),
            ("<!-- helm values -->", Some(Marker::HelmValues)),
            ("<!-- run: lab -->\n", None),
            ("<!-- any comment -->\ntext", None),
            ("text", None),
        ] {
            let page = Page::parse("p.md", &format!("{before}\n```sh\nls\n```\n"));
            assert_eq!(page.blocks[0].marker, expect, "{before}");
            assert_eq!(page.blocks[0].error, None, "{before}");
        }
    }
}
