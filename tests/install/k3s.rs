//! The HelmChart for k3s: the chart accepts its values, and it names the chart of this version.

use crate::chart;
use ferrolb_lab::setup::repository;
use ferrolb_proto::api::{LOAD_BALANCER_CLASS, NAMESPACE};
use serde_json::{Value, json};
use std::fs;

#[test]
fn the_chart_accepts_the_values_of_the_helm_chart_for_k3s() {
    let text = fs::read_to_string(repository().join("deploy/k3s-helmchart.yaml")).unwrap();
    let spec = serde_saphyr::from_str::<Value>(&text).unwrap()["spec"].take();
    let of_chart: Value = serde_saphyr::from_str(&chart::file("Chart.yaml").unwrap()).unwrap();
    assert_eq!(spec["version"], of_chart["version"]);
    assert_eq!(spec["targetNamespace"], NAMESPACE);
    let values = serde_saphyr::from_str(spec["valuesContent"].as_str().unwrap()).unwrap();
    let objects = chart::objects(&values).unwrap();
    let find = |name| objects.iter().find(|it| chart::kind_and_name(it) == name).unwrap();
    assert_eq!(
        find("IPAddressPool/first")["spec"]["addresses"],
        json!(["192.168.1.240-192.168.1.250"])
    );
    let env = &find("DaemonSet/speaker")["spec"]["template"]["spec"]["containers"][0]["env"];
    let class = json!({"name": "FERROLB_LOAD_BALANCER_CLASS", "value": LOAD_BALANCER_CLASS});
    assert!(env.as_array().unwrap().contains(&class), "{env}");
}
