//! IP families: a Service gets a second address when its pool gets addresses of the other family,
//! and loses that address when the Service becomes single-stack.

use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::Result;
use ferrolb_lab::Lab;
use serde_json::{Value, json};

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("from an IPv4 pool, PreferDualStack gets one address and RequireDualStack none", || {
        lab.apply_objects(&[
            pool("families", &["172.30.4.0/28"]),
            dual("would", "PreferDualStack", ["IPv4", "IPv6"]),
        ])?;
        services::wait_addresses(lab, "would", &["172.30.4.0"])?;
        lab.apply_objects(&[dual("reversed", "PreferDualStack", ["IPv6", "IPv4"])])?;
        services::wait_addresses(lab, "reversed", &["172.30.4.1"])?;
        lab.apply_objects(&[dual("needs", "RequireDualStack", ["IPv6", "IPv4"])])?;
        services::wait_refused(lab, "needs", "FamilyMissing")
    })?;
    step(
        "when the pool gets IPv6, all Services get both, in the order of their ipFamilies",
        || {
            lab.apply_objects(&[pool("families", &["172.30.4.0/28", "fd30:4::/124"])])?;
            // Waiting Services are served in the order of their names.
            services::wait_addresses(lab, "needs", &["fd30:4::1", "172.30.4.2"])?;
            services::wait_addresses(lab, "reversed", &["fd30:4::2", "172.30.4.1"])?;
            services::wait_addresses(lab, "would", &["172.30.4.0", "fd30:4::3"])
        },
    )?;
    step(
        "a Service that becomes SingleStack keeps its first address and releases the other",
        || {
            services::patch(lab, "would", &json!({"spec": {"ipFamilyPolicy": "SingleStack"}}))?;
            services::wait_addresses(lab, "would", &["172.30.4.0"])?;
            pools::wait_for(lab, "families", "three IPv4 and two IPv6 addresses in use", |pool| {
                let status = pool.status.as_ref()?;
                ((status.assigned_ipv4, status.assigned_ipv6) == (3, 2)).then_some(())
            })
        },
    )?;
    step("a Service that becomes dual-stack again gets a second address", || {
        let dual =
            json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
        services::patch(lab, "would", &dual)?;
        services::wait_addresses(lab, "would", &["172.30.4.0", "fd30:4::3"])
    })
}

fn dual(name: &str, policy: &str, families: [&str; 2]) -> Value {
    service(name, json!({"ipFamilyPolicy": policy, "ipFamilies": families}))
}
