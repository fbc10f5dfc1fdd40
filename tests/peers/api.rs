//! Comparison of `proto/gobgp/api/gobgp.proto` with the API of the GoBGP version that the lab
//! builds.

use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::setup::{gobgp, repository};
use protox::prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MethodDescriptor, ServiceDescriptor,
};
use std::path::Path;

/// FerroLB's own message for one that GoBGP imports. Both have the same encoding.
const IMPORTED: (&str, &str) = ("api.Time", "google.protobuf.Timestamp");

#[test]
fn the_copied_part_of_gobgps_api_equals_gobgps() -> Result<()> {
    let ours = compiled(&repository().join("proto/gobgp/api"), "gobgp.proto")?;
    let theirs = compiled(&gobgp::source()?.join("proto"), "api/gobgp.proto")?;
    let mut compared = ApiComparison::default();
    compared.messages(&ours, &theirs);
    compared.enums(&ours, &theirs);
    compared.services(&ours, &theirs);
    let ApiComparison { fields, values, methods, problems } = compared;
    print_measured(&format!(
        "compared with GoBGP {}: {fields} fields, {values} values, {methods} methods",
        gobgp::VERSION
    ));
    ensure!(
        problems.is_empty(),
        "proto/gobgp/api/gobgp.proto is not GoBGP's:\n{}",
        problems.join("\n")
    );
    ensure!(fields > 0 && values > 0 && methods > 0, "nothing was compared");
    Ok(())
}

/// Compiles a file and its imports.
fn compiled(folder: &Path, file: &str) -> Result<DescriptorPool> {
    let mut compiler = protox::Compiler::new([folder]).map_err(|error| anyhow!("{error}"))?;
    compiler
        .include_imports(true)
        .open_file(file)
        .map_err(|error| anyhow!("{error}"))
        .context(file.to_owned())?;
    Ok(compiler.descriptor_pool())
}

/// Number of compared items, and the differences.
#[derive(Default)]
struct ApiComparison {
    fields: usize,
    values: usize,
    methods: usize,
    problems: Vec<String>,
}

impl ApiComparison {
    fn messages(&mut self, ours: &DescriptorPool, theirs: &DescriptorPool) {
        for message in ours.all_messages() {
            let Some(other) = theirs.get_message_by_name(&name(message.full_name())) else {
                self.problems.push(format!("there is no message {}", message.full_name()));
                continue;
            };
            for field in message.fields() {
                self.fields += 1;
                let is = other.get_field(field.number()).map(|field| wire_properties(&field));
                self.differ(field.full_name(), &wire_properties(&field), is);
            }
        }
    }

    fn enums(&mut self, ours: &DescriptorPool, theirs: &DescriptorPool) {
        for of in ours.all_enums() {
            let Some(other) = theirs.get_enum_by_name(of.full_name()) else {
                self.problems.push(format!("there is no enum {}", of.full_name()));
                continue;
            };
            for value in of.values() {
                self.values += 1;
                let is = other.get_value(value.number()).map(|value| value.name().to_owned());
                self.differ(value.full_name(), value.name(), is);
            }
        }
    }

    fn services(&mut self, ours: &DescriptorPool, theirs: &DescriptorPool) {
        for service in ours.services() {
            let other = theirs.get_service_by_name(service.full_name());
            let methods: Vec<_> = other.iter().flat_map(ServiceDescriptor::methods).collect();
            for method in service.methods() {
                self.methods += 1;
                let is = methods.iter().find(|other| other.name() == method.name()).map(signature);
                self.differ(method.full_name(), &signature(&method), is);
            }
        }
    }

    fn differ(&mut self, what: &str, ours: &str, theirs: Option<String>) {
        let theirs = theirs.unwrap_or_else(|| "nothing".to_owned());
        if ours != theirs {
            self.problems.push(format!("{what} is here: {ours}; there: {theirs}"));
        }
    }
}

/// Returns all properties of a field that affect its encoding or its meaning.
fn wire_properties(field: &FieldDescriptor) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "scalars go by their names")]
    let kind = match field.kind() {
        Kind::Message(message) => name(message.full_name()),
        Kind::Enum(of) => of.full_name().to_owned(),
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
    let (takes, gives) =
        (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
    format!(
        "({takes}{}) returns ({gives}{})",
        method.input().full_name(),
        method.output().full_name()
    )
}

/// Returns GoBGP's name of one of FerroLB's messages.
fn name(ours: &str) -> String {
    let (own, elsewhere) = IMPORTED;
    if ours == own { elsewhere } else { ours }.to_owned()
}
