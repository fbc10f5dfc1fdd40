//! The result of a check: the findings by category. Pure.

use serde::Serialize;

use super::facts::ClusterFacts;
use super::finding::{Category, Finding, Severity};
use super::{bgp, cluster, installation, layer2, load_balancers, permissions, pools, services};

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of problems.
    pub problems: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// True if the user may not read the objects that FerroLB reads, so that categories are absent.
    pub incomplete: bool,
    /// The results of the categories, in the order of the output.
    pub categories: Vec<CategoryReport>,
}

/// The findings of one category.
#[derive(Clone, Debug, Serialize)]
pub struct CategoryReport {
    /// The category.
    pub category: Category,
    /// A line for a category without findings; `None` with findings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The findings, problems first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Compares the facts with all rules.
    #[must_use]
    pub fn new(facts: &ClusterFacts) -> Self {
        let categories =
            if facts.before_installation { &Category::PRE[..] } else { &Category::ALL[..] };
        let is_readable = |category: &Category| {
            // The other categories need the objects.
            facts.objects.is_some()
                || matches!(
                    category,
                    Category::Cluster | Category::LoadBalancers | Category::Permissions
                )
        };
        let categories: Vec<_> = categories
            .iter()
            .filter(|it| is_readable(it))
            .map(|it| CategoryReport::new(*it, facts))
            .collect();
        let count = |severity| {
            let findings = categories.iter().flat_map(|it| &it.findings);
            findings.filter(|it| it.severity == severity).count()
        };
        let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
        Self { problems, warnings, incomplete: facts.objects.is_none(), categories }
    }

    /// Returns whether there are no problems. With `strict`, warnings count as problems.
    #[must_use]
    pub const fn is_good(&self, strict: bool) -> bool {
        self.problems == 0 && (self.warnings == 0 || !strict)
    }

    /// Returns all findings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.categories.iter().flat_map(|it| &it.findings)
    }
}

impl CategoryReport {
    fn new(category: Category, facts: &ClusterFacts) -> Self {
        let (mut findings, summary) = match category {
            Category::Installation => (installation::findings(facts), installation::summary(facts)),
            Category::Cluster => (cluster::findings(facts), cluster::summary(facts)),
            Category::LoadBalancers => {
                (load_balancers::findings(facts), load_balancers::summary(facts))
            }
            Category::Pools => (pools::findings(facts), pools::summary(facts)),
            Category::Layer2 => (layer2::findings(facts), layer2::summary(facts)),
            Category::Bgp => (bgp::findings(facts), bgp::summary(facts)),
            Category::Permissions => (permissions::findings(facts), permissions::summary(facts)),
            Category::Services => (services::findings(facts), services::summary(facts)),
        };
        let is_complete = facts.denied.iter().all(|(incomplete, _)| *incomplete != category);
        let summary =
            if is_complete { summary } else { format!("{summary} (not all objects were checked)") };
        findings.sort_by_key(|it| (it.severity, it.code));
        let summary = findings.is_empty().then_some(summary);
        Self { category, summary, findings }
    }
}
