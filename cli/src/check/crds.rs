//! Comparison of the installed CRDs with those of this version. Pure.

use std::collections::BTreeMap;

use ferrolb_proto::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
    JSONSchemaPropsOrArray,
};

/// Difference between an installed CRD and the one of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrdProblem {
    /// The CRD does not exist.
    Missing,
    /// The CRD does not serve this version.
    NotServed(String),
    /// The schema has no such fields.
    Fields(Vec<String>),
}

/// Returns the problems of the installed CRDs, by name.
#[must_use]
pub fn problems(
    installed: &BTreeMap<String, CustomResourceDefinition>,
) -> Vec<(String, CrdProblem)> {
    let problem = |wanted: CustomResourceDefinition| {
        let name = wanted.metadata.name.clone()?;
        let problem = compare(&wanted, installed.get(&name))?;
        Some((name, problem))
    };
    api::crds().into_iter().filter_map(problem).collect()
}

fn compare(
    wanted: &CustomResourceDefinition,
    installed: Option<&CustomResourceDefinition>,
) -> Option<CrdProblem> {
    let Some(installed) = installed else { return Some(CrdProblem::Missing) };
    let mut missing = Vec::new();
    for version in &wanted.spec.versions {
        let served = installed.spec.versions.iter().find(|it| it.name == version.name && it.served);
        let Some(served) = served else {
            return Some(CrdProblem::NotServed(version.name.clone()));
        };
        if let (Some(wanted), Some(served)) = (schema(version), schema(served)) {
            missing_fields(wanted, served, "", &mut missing);
        }
    }
    (!missing.is_empty()).then_some(CrdProblem::Fields(missing))
}

fn schema(version: &CustomResourceDefinitionVersion) -> Option<&JSONSchemaProps> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

/// Adds the paths of the fields that only `wanted` has. Of a missing object, only its own path.
fn missing_fields(
    wanted: &JSONSchemaProps,
    installed: &JSONSchemaProps,
    path: &str,
    missing: &mut Vec<String>,
) {
    for (name, field) in wanted.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match installed.properties.as_ref().and_then(|all| all.get(name)) {
            Some(other) => missing_fields(field, other, &path, missing),
            None => missing.push(path),
        }
    }
    if let (Some(wanted), Some(installed)) = (item(wanted), item(installed)) {
        missing_fields(wanted, installed, &format!("{path}[]"), missing);
    }
}

fn item(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(item) => Some(item),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed() -> BTreeMap<String, CustomResourceDefinition> {
        let named = |crd: CustomResourceDefinition| Some((crd.metadata.name.clone()?, crd));
        api::crds().into_iter().filter_map(named).collect()
    }

    #[test]
    fn the_crds_of_this_version_have_no_problem() {
        assert_eq!(problems(&installed()), []);
        let names = problems(&BTreeMap::new());
        assert_eq!(names.len(), api::crds().len());
        assert!(names.iter().all(|(_, problem)| *problem == CrdProblem::Missing));
    }

    #[test]
    fn an_older_crd_lacks_versions_and_fields() {
        let mut old = installed();
        let crd = old.get_mut("bgppeers.ferrolb.io").unwrap();
        crd.spec.versions[0].served = false;
        let crd = old.get_mut("speakerstatuses.ferrolb.io").unwrap();
        let root = crd.spec.versions[0].schema.as_mut().unwrap();
        let root = root.open_api_v3_schema.as_mut().unwrap().properties.as_mut().unwrap();
        let status = root.get_mut("status").unwrap().properties.as_mut().unwrap();
        status.remove("bgp");
        let interfaces = status.get_mut("interfaces").unwrap().items.as_mut().unwrap();
        let JSONSchemaPropsOrArray::Schema(interface) = interfaces else { panic!("no schema") };
        interface.properties.as_mut().unwrap().remove("subnets");
        let fields = ["status.bgp", "status.interfaces[].subnets"].map(str::to_owned).to_vec();
        assert_eq!(
            problems(&old),
            [
                ("bgppeers.ferrolb.io".to_owned(), CrdProblem::NotServed("v1beta2".to_owned())),
                ("speakerstatuses.ferrolb.io".to_owned(), CrdProblem::Fields(fields)),
            ]
        );
    }
}
