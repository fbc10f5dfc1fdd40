//! The objects of a proposed pool, their YAML, and the command that applies them. Pure.

use ferrolb_controller_core::state::Names;
use ferrolb_proto::api::{CustomResourceKind, NAMESPACE};
use serde_json::{Value, json};

use super::propose::{POOL, ProposedPool};

/// Returns the IPAddressPool and the L2Advertisement of a proposed pool.
#[must_use]
pub fn objects(pool: &ProposedPool, names: &Names) -> [Value; 2] {
    let object = |kind: CustomResourceKind, spec: Value| {
        json!({
            "apiVersion": format!("{}/{}", names.group, kind.version()),
            "kind": kind.name(),
            "metadata": {"name": pool.name, "namespace": names.namespace},
            "spec": spec,
        })
    };
    [
        object(CustomResourceKind::IPAddressPool, json!({"addresses": [pool.range.to_string()]})),
        object(CustomResourceKind::L2Advertisement, json!({"ipAddressPools": [pool.name]})),
    ]
}

/// Returns the YAML of the objects.
///
/// # Errors
/// The objects cannot be written as YAML.
pub fn yaml(pool: &ProposedPool, names: &Names) -> Result<String, serde_saphyr::ser::Error> {
    let texts = objects(pool, names).map(|object| serde_saphyr::to_string(&object));
    let texts: Vec<_> = texts.into_iter().collect::<Result<_, _>>()?;
    Ok(texts.join("---\n"))
}

/// Returns the command that applies this pool without a confirmation. `installation` is the
/// namespace of FerroLB.
#[must_use]
pub fn command(pool: &ProposedPool, installation: &str) -> String {
    let option = |name: &str, value: &str, default: &str| {
        if value == default { String::new() } else { format!(" --{name} {value}") }
    };
    let installation = option("installation", installation, NAMESPACE);
    let name = option("pool", &pool.name, POOL);
    format!("kubectl ferrolb init{installation}{name} --range {} --yes", pool.range)
}
