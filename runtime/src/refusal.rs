//! Explanations of status writes that the API server refuses, for both programs.

use kube::core::Status;

/// Message with the remedy if a CustomResourceDefinition is older than the program.
pub const CRDS_ARE_OLDER: &str = "the cluster's CustomResourceDefinitions are older than this program, and Helm does not \
    upgrade them: apply those of this version, deploy/base/crds.yaml or the chart's folder crds";

/// Returns whether the API server refused an apply because the kind's schema lacks a field.
///
/// Kubernetes has no `reason` for this case and replies with the status 500, so the function
/// searches the message.
#[must_use]
pub fn lacks_field(status: &Status) -> bool {
    status.message.contains("field not declared in schema")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_schema_field_is_recognized() {
        let refused =
            |message: &str| Status { message: message.into(), code: 500, ..Status::default() };
        let missing_field = "failed to create typed patch object (ferrolb-system/node1; ferrolb.io/v1alpha1, Kind=SpeakerStatus): \
            .status.dataPath: field not declared in schema";
        assert!(lacks_field(&refused(missing_field)));
        assert!(!lacks_field(&refused("etcdserver: request timed out")));
    }
}
