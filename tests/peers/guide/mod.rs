//! Commands of the documentation's pages on a cluster with a router; README.md has the drawing.

use crate::expect;
use anyhow::{Context, Result};
use ferrolb_lab::routers::{Router, RouterKind};
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, Options};
use ferrolb_tests::run::Runner;
use ferrolb_tests::scenarios::{apply_objects, run_pages, start_pods};
use ferrolb_tests::{Page, Topology, read_page, to_lab};

/// Page with a complete configuration of the router, for pages without one.
const BGP_PAGE: &str = "docs/configure/bgp.md";
/// Pages that continue with the objects of [`BGP_PAGE`].
const AFTER_BGP_PAGE: [&str; 5] = [
    "docs/configure/bfd.md",
    DRAIN_PAGE,
    "docs/routers/bird.md",
    "docs/routers/frr.md",
    "docs/routers/unifi.md",
];
/// Page with the drain of a rack, and of Services with policy `Local`.
const DRAIN_PAGE: &str = "docs/operate/drain.md";
/// Kinds of router, a line of their configuration, and a word of a complete configuration.
const CONFIGS: [(RouterKind, &str, &str); 2] = [
    (RouterKind::Frr, "router bgp 64512", "remote-as"),
    (RouterKind::Bird, "protocol bgp ", "protocol device"),
];
/// Language of the pages' configurations of routers.
const TEXT: &str = "text";
/// Ranges of the pages' pools for BGP.
const ROUTED: [&str; 2] = ["203.0.113.0/24", "2001:db8::/32"];

#[test]
fn commands_of_the_pages_print_the_outputs_of_the_pages() {
    let options = Options { bgp: true, ..Options::named("bgppage") };
    run_pages(Topology::Bgp, &options, |lab, page| {
        lab.start_ferrolb()?;
        start_pods(lab)?;
        start_router(lab, page)?;
        let mut ranges = ROUTED.iter();
        ranges.try_for_each(|range| expect::route_client_range_through(lab, range, ROUTERS[0]))?;
        if AFTER_BGP_PAGE.contains(&page.path.as_str()) {
            let bgp = read_page(BGP_PAGE)?;
            apply_objects(lab, &bgp)?;
            Runner::in_lab(lab)?.page(&bgp, Topology::Bgp)?;
        }
        if page.path == DRAIN_PAGE { prepare_drain(lab) } else { Ok(()) }
    });
}

/// Puts a node into the rack `a`, and sets the policy `Local` of the Service.
fn prepare_drain(lab: &Lab) -> Result<()> {
    lab.kubectl(&["label", "node", "node2", "rack=a"])?;
    let policy = r#"{"spec": {"externalTrafficPolicy": "Local"}}"#;
    lab.kubectl(&["patch", "service", "web", "-p", policy]).map(drop)
}

/// Starts the router with the configuration on a page. Lines of an incomplete configuration change
/// the router that [`BGP_PAGE`] configures.
fn start_router(lab: &Lab, page: &Page) -> Result<()> {
    let own = config_block(page);
    if let Some((kind, config, true)) = &own {
        return Router::start(lab, *kind, ROUTERS[0], &to_lab(config)).map(drop);
    }
    let (kind, config, _) = config_block(&read_page(BGP_PAGE)?)
        .with_context(|| format!("{BGP_PAGE} has no configuration of a router"))?;
    let router = Router::start(lab, kind, ROUTERS[0], &to_lab(&config))?;
    let Some((_, lines, _)) = own.filter(|(own_kind, ..)| *own_kind == kind) else {
        return Ok(());
    };
    let lines = to_lab(&lines);
    router.run_command(
        &["configure terminal"].into_iter().chain(lines.lines()).collect::<Vec<_>>(),
    )?;
    Ok(())
}

/// Returns the first configuration on a page, and whether it is complete.
fn config_block(page: &Page) -> Option<(RouterKind, String, bool)> {
    let mut texts = page.blocks.iter().filter(|block| block.language == TEXT);
    texts.find_map(|block| {
        let (kind, _, word) = CONFIGS.into_iter().find(|(_, line, _)| block.text.contains(line))?;
        Some((kind, block.text.clone(), block.text.contains(word)))
    })
}
