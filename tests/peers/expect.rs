//! What the stories wait for on a router.

use crate::objects::BGP_MAX;
use anyhow::{Result, ensure};
use ferrolb_tests::routers::{Route, Router};
use ferrolb_tests::wait;
use std::net::IpAddr;

/// Waits until a router has sessions with these neighbours, and with no other.
pub(crate) fn standing(router: &Router, neighbours: &[IpAddr]) -> Result<()> {
    wait::until("the sessions", BGP_MAX, || {
        let sessions = router.sessions()?;
        let up = sessions.iter().filter(|session| session.established).map(|session| session.neighbour);
        ensure!(up.collect::<Vec<_>>() == neighbours, "{router} has {sessions:?}, and should have {neighbours:?}");
        Ok(Some(()))
    })
}

/// Waits until a router has exactly these paths.
pub(crate) fn sees(router: &Router, mut paths: Vec<Route>) -> Result<()> {
    paths.sort();
    wait::until("the paths", BGP_MAX, || {
        let routes = router.routes()?;
        ensure!(routes == paths, "{router} sees {routes:#?}, not {paths:#?}");
        Ok(Some(()))
    })
}
