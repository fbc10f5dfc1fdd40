//! Migrations on a cluster on which FerroLB has pools already: those of an earlier run, or of a
//! trial.

use super::*;

#[test]
fn a_second_run_extends_the_pool_of_the_first_and_a_rollback_restores_it() {
    let spec = |addresses: &[&str], namespaces: &[&str]| {
        json!({"addresses": addresses, "autoAssign": false,
            "serviceAllocation": {"namespaces": namespaces}})
    };
    let former = pool("external-ips", spec(&["10.0.0.1"], &["blue"]));
    let objects = read(&["external_ips.yaml"])
        .with([former.clone(), served("first", "external-ips", "10.0.0.1")]);
    let migration = external_ips::plan(&objects, DIRECTORY, FERROLB);
    assert!(keeps(&migration, "first"), "{:#?}", migration.services);
    let file = |name: &str| {
        let mut files = migration.files.iter();
        files.find(|it| it.name == name).map(|it| it.objects.as_slice())
    };
    assert_eq!(file("former.yaml"), Some(&[former][..]));
    let Some([changed]) = file("changed.yaml") else { panic!("{:#?}", migration.files) };
    let addresses = ["10.0.0.1", "192.168.1.245", "192.168.1.246", "2001:db8::246"];
    assert_eq!(changed["spec"], spec(&addresses, &["blue", "default", "shop"]));
    assert_eq!(file("ferrolb.yaml").map(<[Value]>::len), Some(1), "the advertisement");
    assert_eq!(
        texts(&step(&migration, "pool").rollback),
        [
            "kubectl delete -f ferrolb-migration/ferrolb.yaml",
            "kubectl apply -f ferrolb-migration/former.yaml"
        ]
    );
}

#[test]
fn a_second_run_without_news_changes_no_object() {
    let first = kube_vip::plan(&read(&["kube_vip.yaml"]), DIRECTORY, FERROLB);
    let created = first.files.iter().flat_map(|file| file.objects.iter().cloned());
    let objects = read(&["kube_vip.yaml"]).with(created);
    let second = kube_vip::plan(&objects, DIRECTORY, FERROLB);
    assert_eq!(second.files, []);
    let outcomes = |migration: &Migration| {
        let results = migration.services.iter().map(|it| format!("{:?}", it.result));
        results.collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&second), outcomes(&first));
}

#[test]
fn a_pool_on_trial_of_the_same_name_is_a_problem_and_remains() {
    let trial = pool("lan", json!({"addresses": ["10.0.0.1"]}));
    let objects = read(&["metallb.yaml"]).with([trial, served("trial", "lan", "10.0.0.1")]);
    let metallb = MetalLb::find(&objects, None, FERROLB).unwrap();
    let migration = metallb.own_group(DIRECTORY);
    let problem = migration.problems.iter().find(|it| it.object == "IPAddressPool lan");
    assert!(problem.is_some_and(|it| it.level == Level::Problem), "{:#?}", migration.problems);
    assert!(keeps(&migration, "trial"), "{:#?}", migration.services);
    let written = migration.files.iter().flat_map(|it| &it.objects);
    let is_trial = |it: &&Value| it["kind"] == "IPAddressPool" && objects::name(it) == "lan";
    assert_eq!(written.filter(is_trial).count(), 0);
}

#[test]
fn a_pool_of_the_plan_neither_repeats_nor_replaces_an_older_pool() {
    let older = |name: &str, address: &str| {
        let mut pool = pool(name, json!({"addresses": [address]}));
        pool["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        pool
    };
    // The first address is in the pool for the fixed addresses, the second in that of a namespace.
    let pools = [older("lan", "192.168.1.10"), older("trial", "192.168.1.232")];
    let objects = read(&["kube_vip.yaml"]).with(pools);
    let plan = kube_vip::plan(
        &objects.with([served("trial", "trial", "192.168.1.232")]),
        DIRECTORY,
        FERROLB,
    );
    let written = plan.files.iter().flat_map(|it| &it.objects);
    assert!(written.clone().count() > 1);
    assert!(
        written.into_iter().all(|it| objects::name(it) != "kube-vip-fixed"),
        "{:#?}",
        plan.files
    );
    assert!(keeps(&plan, "trial"), "{:#?}", plan.services);
    let invalid = plan.problems.iter().any(|it| it.object == "IPAddressPool kube-vip-shop");
    assert!(invalid, "{:#?}", plan.problems);
}
