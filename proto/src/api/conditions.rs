//! The CRD schema of `status.conditions`. Kubernetes' own schema would make every build compile the
//! schemas of all Kubernetes types.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Returns the schema of a list of conditions (meta/v1.Condition).
pub(super) fn condition_list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "description": "A statement about one aspect of this object (meta/v1.Condition).",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "Time of the last change of `status`.",
                },
                "message": {
                    "type": "string",
                    "description": "Explanation of `status` and `reason` for people.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The `metadata.generation` to which the condition applies.",
                },
                "reason": {
                    "type": "string",
                    "description": "Cause of `status` for programs, in CamelCase.",
                },
                "status": {
                    "type": "string",
                    "description": "`True`, `False` or `Unknown`.",
                },
                "type": {
                    "type": "string",
                    "description": "Name of the condition, in CamelCase.",
                },
            },
        },
    })
}
