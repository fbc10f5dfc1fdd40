//! The manifests of an installation. The program contains those of its release. Pure.

use std::fmt;

use clap::ValueEnum;
use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;

use crate::objects::text;

/// Returns a file of the folder that `build.rs` names.
macro_rules! manifest {
    ($name:literal) => {
        include_str!(concat!(env!("FERROLB_MANIFESTS"), "/", $name))
    };
}

/// An installation method, with the name of its overlay in `deploy/overlays`.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Layer 2
    #[default]
    L2,
    /// Layer 2 and BGP, with a gobgpd on each node
    Bgp,
    /// Layer 2, only for Services of the class ferrolb.io/ferrolb
    BesideMetallb,
    /// Layer 2 with MetalLB's own pools, after its components are removed
    MetallbTakeover,
}

/// The objects of an installation, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stages {
    /// The Namespace and the CustomResourceDefinitions.
    pub first: Vec<Value>,
    /// All other objects.
    pub then: Vec<Value>,
    /// Deployments and DaemonSets, whose pods need the other objects.
    pub workloads: Vec<Value>,
}

impl Variant {
    /// Returns the manifest for a namespace. Its name is part of the names of objects without a
    /// namespace, and of expressions.
    #[must_use]
    pub fn yaml(self, namespace: &str) -> String {
        let manifest = match self {
            Self::L2 => manifest!("install.yaml"),
            Self::Bgp => manifest!("install-bgp.yaml"),
            Self::BesideMetallb => manifest!("install-beside-metallb.yaml"),
            Self::MetallbTakeover => manifest!("install-metallb-takeover.yaml"),
        };
        manifest.replace(NAMESPACE, namespace)
    }

    /// Returns the objects of the manifest.
    ///
    /// # Errors
    /// The manifest cannot be decoded.
    pub fn stages(self, namespace: &str) -> Result<Stages, serde_saphyr::Error> {
        let mut stages = Stages::default();
        for object in serde_saphyr::from_multiple::<Value>(&self.yaml(namespace))? {
            let stage = match text(&object, "/kind") {
                "Namespace" | "CustomResourceDefinition" => &mut stages.first,
                "Deployment" | "DaemonSet" => &mut stages.workloads,
                _ => &mut stages.then,
            };
            stage.push(object);
        }
        Ok(stages)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map(clap::builder::PossibleValue::get_name).unwrap_or_default())
    }
}
