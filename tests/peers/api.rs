//! Comparison of `proto/gobgp/api/gobgp.proto` with the API of the GoBGP version that the lab
//! builds.

use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::setup::{gobgp, repository};
use protox::prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MethodDescriptor, ServiceDescriptor,
};
use std::path::Path;

/// Name of a message in FerroLB's copy of the API, and of the message that GoBGP's API imports in
/// its place. Both messages have the same encoding.
const REPLACED_IMPORT: (&str, &str) = ("api.Time", "google.protobuf.Timestamp");

#[test]
fn the_copied_part_of_the_gobgp_api_is_unchanged() -> Result<()> {
    let own = compile(&repository().join("proto/gobgp/api"), "gobgp.proto")?;
    let gobgp_api = compile(&gobgp::source()?.join("proto"), "api/gobgp.proto")?;
    let mut comparison = ApiComparison::default();
    comparison.messages(&own, &gobgp_api);
    comparison.enums(&own, &gobgp_api);
    comparison.services(&own, &gobgp_api);
    let ApiComparison { fields, values, methods, problems } = comparison;
    print_measured(&format!(
        "compared with GoBGP {}: {fields} fields, {values} values, {methods} methods",
        gobgp::VERSION
    ));
    ensure!(
        problems.is_empty(),
        "proto/gobgp/api/gobgp.proto differs from the API of GoBGP:\n{}",
        problems.join("\n")
    );
    ensure!(
        fields > 0 && values > 0 && methods > 0,
        "the files contain no fields, values or methods"
    );
    Ok(())
}

/// Compiles a file and its imports.
fn compile(folder: &Path, file: &str) -> Result<DescriptorPool> {
    let mut compiler = protox::Compiler::new([folder]).map_err(|error| anyhow!("{error}"))?;
    compiler
        .include_imports(true)
        .open_file(file)
        .map_err(|error| anyhow!("{error}"))
        .context(file.to_owned())?;
    Ok(compiler.descriptor_pool())
}

/// Numbers of compared fields, enum values and methods, and the differences found.
#[derive(Default)]
struct ApiComparison {
    fields: usize,
    values: usize,
    methods: usize,
    problems: Vec<String>,
}

impl ApiComparison {
    fn messages(&mut self, own: &DescriptorPool, gobgp_api: &DescriptorPool) {
        for message in own.all_messages() {
            let Some(other) = gobgp_api.get_message_by_name(&name(message.full_name())) else {
                self.problems.push(format!("GoBGP has no message {}", message.full_name()));
                continue;
            };
            for field in message.fields() {
                self.fields += 1;
                let found = other.get_field(field.number()).map(|field| field_properties(&field));
                self.compare(field.full_name(), &field_properties(&field), found);
            }
        }
    }

    fn enums(&mut self, own: &DescriptorPool, gobgp_api: &DescriptorPool) {
        for enumeration in own.all_enums() {
            let Some(other) = gobgp_api.get_enum_by_name(enumeration.full_name()) else {
                self.problems.push(format!("GoBGP has no enum {}", enumeration.full_name()));
                continue;
            };
            for value in enumeration.values() {
                self.values += 1;
                let found = other.get_value(value.number()).map(|value| value.name().to_owned());
                self.compare(value.full_name(), value.name(), found);
            }
        }
    }

    fn services(&mut self, own: &DescriptorPool, gobgp_api: &DescriptorPool) {
        for service in own.services() {
            let other = gobgp_api.get_service_by_name(service.full_name());
            let methods: Vec<_> = other.iter().flat_map(ServiceDescriptor::methods).collect();
            for method in service.methods() {
                self.methods += 1;
                let found =
                    methods.iter().find(|other| other.name() == method.name()).map(signature);
                self.compare(method.full_name(), &signature(&method), found);
            }
        }
    }

    /// Adds a problem unless the item `what` is the same in FerroLB's copy and in GoBGP.
    fn compare(&mut self, what: &str, own: &str, gobgp_api: Option<String>) {
        let gobgp_api = gobgp_api.unwrap_or_else(|| "nothing".to_owned());
        if own != gobgp_api {
            self.problems
                .push(format!("{what} is {own} in FerroLB's copy and {gobgp_api} in GoBGP"));
        }
    }
}

/// Returns all properties of a field that affect its encoding or its meaning.
fn field_properties(field: &FieldDescriptor) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every scalar has its own name")]
    let kind = match field.kind() {
        Kind::Message(message) => name(message.full_name()),
        Kind::Enum(enumeration) => enumeration.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    };
    let repeated = if field.cardinality() == Cardinality::Repeated { "repeated " } else { "" };
    let packed = if field.is_packed() { " packed" } else { "" };
    let presence = if field.supports_presence() { " optional" } else { "" };
    let choice =
        field.containing_oneof().map(|of| format!(" in {}", of.name())).unwrap_or_default();
    format!("{repeated}{kind} {} = {}{packed}{presence}{choice}", field.name(), field.number())
}

fn signature(method: &MethodDescriptor) -> String {
    let stream = |streams| if streams { "stream " } else { "" };
    let (input, output) =
        (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
    format!(
        "({input}{}) returns ({output}{})",
        method.input().full_name(),
        method.output().full_name()
    )
}

/// Returns the name that a message of FerroLB's copy has in GoBGP's API.
fn name(own: &str) -> String {
    let (replacement, imported) = REPLACED_IMPORT;
    if own == replacement { imported } else { own }.to_owned()
}
