//! The effect of changes as text. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::changes::Changes;
use super::effect::{AddressEffect, Effect, OwnerEffect, RouteEffect, ServiceEffect};
use crate::table::{first_names, table};

impl Effect {
    /// Returns the effect as text. `pool_grace` is the value of `--pool-grace`.
    #[must_use]
    pub fn text(&self, changes: &Changes, pool_grace: Duration) -> String {
        let described = first_names(&changes.described);
        let described = if described.is_empty() { "none" } else { &*described };
        let mut text = format!("changes: {described}\n");
        if !changes.ignored.is_empty() {
            _ = writeln!(
                text,
                "not predicted, because FerroLB does not read them: {}",
                first_names(&changes.ignored)
            );
        }
        text.push_str(&self.tables(pool_grace));
        _ = writeln!(text, "\n{}", self.summary());
        text
    }

    /// Returns a table for each kind of effect that occurs, each after an empty line.
    fn tables(&self, pool_grace: Duration) -> String {
        let mut text = String::new();
        if !self.services.is_empty() {
            let columns = ["SERVICE", "BEFORE", "AFTER", "EFFECT"];
            let rows = self.services.iter().map(|it| it.row(pool_grace));
            _ = write!(text, "\n{}", table(columns, rows));
        }
        if !self.owners.is_empty() {
            let columns = ["ADDRESS", "SERVICES", "NODE BEFORE", "NODE AFTER"];
            _ = write!(text, "\n{}", table(columns, self.owners.iter().map(OwnerEffect::row)));
        }
        if !self.routes.is_empty() {
            let columns = ["BGPPEER", "PREFIX", "EFFECT"];
            _ = write!(text, "\n{}", table(columns, self.routes.iter().map(RouteEffect::row)));
        }
        text
    }

    fn summary(&self) -> String {
        use AddressEffect::{Added, Lost, Moved, New, Released};
        let kinds = [
            (Lost, "lost"),
            (Moved, "moved"),
            (Added, "added"),
            (New, "new"),
            (Released, "released"),
        ];
        let count = |kind| self.services.iter().filter(|it| it.effect == kind).count();
        let counts = kinds.map(|(kind, name)| (count(kind), name));
        let mut parts: Vec<_> = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        parts.push(format!("{} kept", self.kept));
        format!(
            "addresses of Services: {}; owners changed: {}; routes changed: {}",
            parts.join(", "),
            self.owners.len(),
            self.routes.len()
        )
    }
}

impl ServiceEffect {
    fn row(&self, pool_grace: Duration) -> [String; 4] {
        let addresses =
            |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut effect = match self.effect {
            AddressEffect::Lost => format!("lost: {}", self.reason),
            AddressEffect::Moved => "moved".to_owned(),
            AddressEffect::Added => "added".to_owned(),
            AddressEffect::New if self.after.is_empty() => format!("new: {}", self.reason),
            AddressEffect::New => "new".to_owned(),
            AddressEffect::Released => "released".to_owned(),
        };
        if self.after_pool_grace {
            _ = write!(effect, ", after {} s (--pool-grace)", pool_grace.as_secs());
        }
        [self.service.clone(), addresses(&self.before), addresses(&self.after), effect]
    }
}

impl OwnerEffect {
    fn row(&self) -> [String; 4] {
        let nodes = |all: &[String]| all.join(",");
        [self.address.to_string(), self.services.join(","), nodes(&self.before), nodes(&self.after)]
    }
}

impl RouteEffect {
    fn row(&self) -> [String; 3] {
        let parts = [
            ("advertised by", &self.advertised),
            ("withdrawn by", &self.withdrawn),
            ("de-preferred by", &self.de_preferred),
            ("preferred again by", &self.preferred),
        ];
        let effects = parts.iter().filter(|(_, nodes)| !nodes.is_empty());
        let effects = effects.map(|(effect, nodes)| format!("{effect} {}", nodes.join(",")));
        [self.peer.clone(), self.prefix.clone(), effects.collect::<Vec<_>>().join("; ")]
    }
}
