//! Manifests of network plugins: the names of their images, and changes for clusters without a
//! registry. Pure functions.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Returns the containers of an object's pods, init containers included.
fn containers(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    let pod = object.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut);
    pod.into_iter()
        .flatten()
        .filter(|(field, _)| ["containers", "initContainers"].contains(&field.as_str()))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
}

/// Makes all pods use images of the machines: an image without a tag gets that of `version`.
pub(super) fn use_local_images(objects: &mut [Value], version: &str) {
    for container in objects.iter_mut().flat_map(containers) {
        container["imagePullPolicy"] = json!("Never");
        if let Some(image) = container["image"].as_str()
            && component(image) == image.rsplit('/').next().unwrap_or_default()
        {
            container["image"] = json!(format!("{image}:{version}"));
        }
    }
}

/// Returns the names of all images, each once.
pub(super) fn image_names(objects: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = objects
        .to_vec()
        .iter_mut()
        .flat_map(containers)
        .filter_map(|container| Some(container["image"].as_str()?.to_owned()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the image of `component`, as in `registry/path/component:version`.
pub(super) fn image_of<'a>(names: &'a [String], component: &str) -> Result<&'a str> {
    let found = names.iter().find(|name| self::component(name) == component);
    found.map(String::as_str).with_context(|| format!("the manifest has no image of {component}"))
}

/// Returns the last part of an image's name, without its tag.
fn component(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

/// Adds arguments to the only container of the object with this kind.
pub(super) fn add_arguments(objects: &mut [Value], kind: &str, arguments: &[&str]) -> Result<()> {
    let object = object_of(objects, kind)?;
    let args = object.pointer_mut("/spec/template/spec/containers/0/args");
    let args = args.and_then(Value::as_array_mut).context("the container has no arguments")?;
    args.extend(arguments.iter().map(|argument| json!(argument)));
    Ok(())
}

/// Returns the only object of a kind.
pub(super) fn object_of<'a>(objects: &'a mut [Value], kind: &str) -> Result<&'a mut Value> {
    objects
        .iter_mut()
        .find(|object| object["kind"] == kind)
        .with_context(|| format!("the manifest has no {kind}"))
}

/// Changes a JSON text in the ConfigMap of the manifest.
pub(super) fn change_config(
    objects: &mut [Value],
    file: &str,
    change: impl FnOnce(&mut Value),
) -> Result<()> {
    let text = &mut object_of(objects, "ConfigMap")?["data"][file];
    let mut config: Value =
        serde_json::from_str(text.as_str().with_context(|| format!("there is no {file}"))?)?;
    change(&mut config);
    *text = json!(config.to_string());
    Ok(())
}

/// Replaces every `from` in the text of a manifest, which contains one.
pub(super) fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "the manifest has no {from:?}");
    Ok(text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set(images: [&str; 2]) -> Value {
        json!({"kind": "DaemonSet", "spec": {"template": {"spec": {
            "initContainers": [{"image": images[0], "imagePullPolicy": "Always"}],
            "containers": [{"image": images[1], "args": ["--a"]}],
        }}}})
    }

    #[test]
    fn pods_use_images_of_the_machines() {
        let mut objects =
            [json!({"kind": "Namespace"}), daemon_set(["r.io:5000/p/cni", "r.io/daemon:v2"])];
        use_local_images(&mut objects, "v1");
        assert_eq!(image_names(&objects), ["r.io/daemon:v2", "r.io:5000/p/cni:v1"]);
        assert_eq!(image_of(&image_names(&objects), "cni").unwrap(), "r.io:5000/p/cni:v1");
        assert!(image_of(&image_names(&objects), "other").is_err());
        let text = json!(objects).to_string();
        assert!(text.matches("\"Never\"").count() == 2 && !text.contains("Always"), "{text}");
    }

    #[test]
    fn arguments_and_settings_are_added() {
        let config = json!({"kind": "ConfigMap", "data": {"net.json": "{\"a\": 1}"}});
        let mut objects = [config, daemon_set(["a", "b"])];
        add_arguments(&mut objects, "DaemonSet", &["--b"]).unwrap();
        change_config(&mut objects, "net.json", |config| config["b"] = json!(2)).unwrap();
        let args = objects[1].pointer("/spec/template/spec/containers/0/args");
        assert_eq!(args, Some(&json!(["--a", "--b"])));
        assert_eq!(objects[0]["data"]["net.json"], "{\"a\":1,\"b\":2}");
        assert!(change_config(&mut objects, "other.json", |_| ()).is_err());
    }

    #[test]
    fn a_text_that_is_missing_is_an_error() {
        assert_eq!(replace("a b a", "a", "c").unwrap(), "c b c");
        assert!(replace("b", "a", "c").is_err());
    }
}
