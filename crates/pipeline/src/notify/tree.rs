//! The routing tree: from an alert to the channels that are told.
//!
//! An alert begins at the root, whose channels are all that are configured. At each level the first
//! route that fits takes it, and those below that one are asked in turn; the deepest that fits decides.
//! A route that `continue`s lets its neighbours behind it have the alert, too. What no route takes
//! stays with the one above.

use super::matcher::{Matcher, SpecProblem};
use super::route::{Policy, RouteSpec};
use model::{Alert, AlertKind};
use runtime::config::nearest;

/// Routes of one tree, and levels, at most.
const ROUTES_MAX: usize = 1_000;
const DEPTH_MAX: usize = 8;

#[derive(Debug, Clone)]
struct Route {
    path: String,
    name: String,
    matcher: Matcher,
    written: RouteSpec,
    goes_on: bool,
    policy: Policy,
    routes: Vec<Route>,
}

/// The tree, checked.
#[derive(Debug, Clone)]
pub struct Router {
    /// All there are, by name.
    channels: Vec<String>,
    root: Policy,
    routes: Vec<Route>,
    notes: Vec<String>,
}

/// A route that an alert ends in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit<'a> {
    /// Where it is written, such as `routes[0].routes[2]`; empty: the root.
    pub path: &'a str,
    /// Its name; empty where it has none.
    pub name: &'a str,
    pub policy: &'a Policy,
}

/// A route of the tree, to be shown.
#[derive(Debug, Clone, Copy)]
pub struct RouteView<'a>(&'a Route);

impl<'a> RouteView<'a> {
    pub fn path(&self) -> &'a str {
        &self.0.path
    }
    pub fn name(&self) -> &'a str {
        &self.0.name
    }
    /// What it matches, as written.
    pub fn matcher(&self) -> &'a super::MatcherSpec {
        &self.0.written.matcher
    }
    pub fn goes_on(&self) -> bool {
        self.0.goes_on
    }
    pub fn policy(&self) -> &'a Policy {
        &self.0.policy
    }
    pub fn routes(&self) -> impl Iterator<Item = RouteView<'a>> + use<'a> {
        self.0.routes.iter().map(RouteView)
    }
}

impl Router {
    /// The tree over these channels: what is wrong is returned with its path, all of it.
    pub fn new(channels: Vec<String>, root: Policy, specs: &[RouteSpec]) -> Result<Self, Vec<SpecProblem>> {
        let mut building = Building { channels: &channels, problems: Vec::new(), notes: Vec::new(), count: 0 };
        let routes = building.level(specs, "routes", &root, 1);
        let (problems, notes) = (building.problems, building.notes);
        if problems.is_empty() { Ok(Self { channels, root, routes, notes }) } else { Err(problems) }
    }

    /// Everybody is told of everything.
    pub fn everybody(channels: Vec<String>) -> Self {
        Self { channels, root: Policy::default(), routes: Vec::new(), notes: Vec::new() }
    }

    /// What is not wrong and probably not meant, such as routes that nothing can reach.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// All channels there are.
    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    pub fn root(&self) -> &Policy {
        &self.root
    }

    pub fn routes(&self) -> impl Iterator<Item = RouteView<'_>> {
        self.routes.iter().map(RouteView)
    }

    /// The routes that an alert ends in; never none.
    pub fn hits(&self, alert: &Alert) -> Vec<Hit<'_>> {
        let mut hits = Vec::new();
        if !walk(&self.routes, alert, &mut hits) {
            hits.push(Hit { path: "", name: "", policy: &self.root });
        }
        hits
    }

    /// What decides about the incident of an alert: the first route that it ends in.
    pub fn policy(&self, alert: &Alert) -> &Policy {
        self.hits(alert).first().map_or(&self.root, |hit| hit.policy)
    }

    /// The channels that are told of an alert, in their configured order; `None`: all, whatever they
    /// are.
    pub fn receivers(&self, alert: &Alert) -> Option<Vec<String>> {
        let mut told: Vec<&String> = Vec::new();
        for hit in self.hits(alert) {
            match (alert.kind, &hit.policy.escalation) {
                (AlertKind::Escalation, Some(escalation)) => told.extend(&escalation.to),
                // The tree has changed since the time was set: whoever is told of the alerts is told.
                (AlertKind::Escalation, None) | (AlertKind::Rule | AlertKind::Detection | AlertKind::Unhandled, _) => {
                    told.extend(hit.policy.channels.as_ref()?);
                }
            }
        }
        Some(self.channels.iter().filter(|channel| told.contains(channel)).cloned().collect())
    }

    /// Whether its routes name somebody.
    pub fn tells(&self, alert: &Alert) -> bool {
        self.receivers(alert).is_none_or(|channels| !channels.is_empty())
    }

    /// [`Self::receivers`] by name, with those that are meant by "all".
    pub fn receivers_named(&self, alert: &Alert) -> Vec<String> {
        self.receivers(alert).unwrap_or_else(|| self.channels.clone())
    }
}

/// Whether any of these took the alert.
fn walk<'a>(routes: &'a [Route], alert: &Alert, hits: &mut Vec<Hit<'a>>) -> bool {
    let mut taken = false;
    for route in routes.iter().filter(|route| route.matcher.matches(alert)) {
        taken = true;
        if !walk(&route.routes, alert, hits) {
            hits.push(Hit { path: &route.path, name: &route.name, policy: &route.policy });
        }
        if !route.goes_on {
            break;
        }
    }
    taken
}

struct Building<'a> {
    channels: &'a [String],
    problems: Vec<SpecProblem>,
    notes: Vec<String>,
    count: usize,
}

impl Building<'_> {
    fn level(&mut self, specs: &[RouteSpec], at: &str, above: &Policy, depth: usize) -> Vec<Route> {
        if depth > DEPTH_MAX && !specs.is_empty() {
            self.problems.push(SpecProblem::new(at, format!("is deeper than {DEPTH_MAX} levels")));
            return Vec::new();
        }
        let mut routes: Vec<Route> = Vec::new();
        for (n, spec) in specs.iter().enumerate() {
            let path = format!("{at}[{n}]");
            self.count += 1;
            if self.count > ROUTES_MAX {
                self.problems.push(SpecProblem::new(path, format!("is one of more than {ROUTES_MAX} routes")));
                break;
            }
            let route = self.route(spec, path, above, depth);
            if let Some(first) = routes.iter().find(|first| !first.goes_on && first.matcher.covers(&route.matcher)) {
                self.notes.push(format!(
                    "{}: nothing reaches this route: {} before it takes all that it would",
                    route.path, first.path
                ));
            }
            routes.push(route);
        }
        routes
    }

    fn route(&mut self, spec: &RouteSpec, path: String, above: &Policy, depth: usize) -> Route {
        let matcher = Matcher::new(&spec.matcher, &format!("{path}.match"), &mut self.problems);
        let mut policy = above.with(&spec.policy, &path, &mut self.problems);
        if let Some(channels) = &spec.channels {
            self.known(channels, &format!("{path}.channels"));
            policy.channels = Some(channels.clone());
        }
        if let Some(channels) = &spec.policy.escalate_to {
            self.known(channels, &format!("{path}.escalate_to"));
        }
        let routes = self.level(&spec.routes, &format!("{path}.routes"), &policy, depth + 1);
        Route { path, name: spec.name.clone(), matcher, written: spec.clone(), goes_on: spec.goes_on, policy, routes }
    }

    fn known(&mut self, names: &[String], at: &str) {
        for (n, name) in names.iter().enumerate().filter(|(_, name)| !self.channels.contains(name)) {
            let hint = nearest(name, self.channels.iter().map(String::as_str));
            let hint = hint.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            self.problems.push(SpecProblem::new(format!("{at}[{n}]"), format!("no channel is called `{name}`{hint}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{MatcherSpec, PolicySpec};
    use model::AlertSeverity;
    use testkit::builders::alert;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn route(name: &str, matcher: &str, channels: &[&str]) -> RouteSpec {
        let matcher: MatcherSpec = serde_json::from_str(matcher).unwrap();
        RouteSpec { name: name.into(), matcher, channels: Some(names(channels)), ..RouteSpec::default() }
    }

    fn tree(specs: &[RouteSpec]) -> Router {
        Router::new(names(&["moog", "mail", "pager", "chat"]), Policy::default(), specs).unwrap()
    }

    fn hits(tree: &Router, alert: &Alert) -> Vec<String> {
        tree.hits(alert).iter().map(|hit| hit.name.to_owned()).collect()
    }

    #[test]
    fn without_routes_everybody_is_told() {
        for tree in [tree(&[]), Router::everybody(names(&["moog"]))] {
            let alert = alert().build();
            assert_eq!(tree.receivers(&alert), None);
            assert_eq!(hits(&tree, &alert), [""]);
            assert!(!tree.policy(&alert).gathers(&alert));
        }
    }

    #[test]
    fn the_deepest_route_that_fits_decides_and_neighbours_only_if_it_goes_on() {
        let critical = RouteSpec {
            routes: vec![route("night", r#"{"team":"SOC"}"#, &["pager"])],
            ..route("bad", r#"{"severity":"critical"}"#, &["mail"])
        };
        let copy = RouteSpec { goes_on: true, ..route("copy", r#"{"host":"db-*"}"#, &["chat"]) };
        let tree = tree(&[copy, critical, route("soc", r#"{"team":"SOC"}"#, &["mail"])]);
        let check = |host: &str, team: &str, severity, expected: &[&str], told: Option<&[&str]>| {
            let alert = alert().host(host).team(team).severity(severity).build();
            assert_eq!(hits(&tree, &alert), expected, "{host} {team}");
            assert_eq!(tree.receivers(&alert), told.map(names), "{host} {team}");
        };
        use AlertSeverity::{Critical, Major};
        check("sw", "NETO", Critical, &["bad"], Some(&["mail"]));
        check("sw", "SOC", Critical, &["night"], Some(&["pager"]));
        check("sw", "SOC", Major, &["soc"], Some(&["mail"]));
        check("sw", "NETO", Major, &[""], None);
        check("db-1", "SOC", Critical, &["copy", "night"], Some(&["pager", "chat"]));
        check("db-1", "NETO", Major, &["copy"], Some(&["chat"]));
    }

    #[test]
    fn nobody_can_be_told_on_purpose_and_channels_are_inherited() {
        let quiet = RouteSpec { channels: Some(Vec::new()), ..route("quiet", r#"{"host":"lab-*"}"#, &[]) };
        let below = RouteSpec { channels: None, ..route("below", r#"{"team":"SOC"}"#, &[]) };
        let above = RouteSpec { routes: vec![below], ..route("above", "{}", &["mail"]) };
        let tree = tree(&[quiet, above]);
        assert_eq!(tree.receivers(&alert().host("lab-1").build()), Some(Vec::new()));
        assert_eq!(tree.receivers(&alert().team("SOC").build()), Some(names(&["mail"])));
    }

    #[test]
    fn an_escalation_goes_to_whom_the_route_of_its_incident_names() {
        let policy = PolicySpec {
            escalate_after: Some("15m".into()),
            escalate_to: Some(names(&["pager"])),
            ..PolicySpec::default()
        };
        let tree = tree(&[RouteSpec { policy, ..route("soc", r#"{"kind":"rule"}"#, &["mail"]) }]);
        let told = alert().build();
        let escalated = Alert { kind: AlertKind::Escalation, ..told.clone() };
        assert_eq!(tree.receivers(&told), Some(names(&["mail"])));
        assert_eq!(tree.receivers(&escalated), Some(names(&["pager"])));
    }

    #[test]
    fn mistakes_are_all_named_with_their_paths() {
        let deep = RouteSpec { channels: Some(names(&["pagr"])), ..RouteSpec::default() };
        let spec = RouteSpec {
            routes: vec![deep],
            policy: PolicySpec { resolve_after: Some("soon".into()), ..PolicySpec::default() },
            ..route("x", r#"{"severity":"loud"}"#, &["mail", "nobody"])
        };
        let problems = Router::new(names(&["mail", "pager"]), Policy::default(), &[spec]).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        let expected = [
            "routes[0].match.severity",
            "routes[0].resolve_after",
            "routes[0].channels[1]",
            "routes[0].routes[0].channels[0]",
        ];
        assert_eq!(paths, expected);
        assert!(problems[3].message.contains("did you mean `pager`?"), "{problems:?}");
        let mut deep = RouteSpec::default();
        for _ in 0..DEPTH_MAX {
            deep = RouteSpec { routes: vec![deep], ..RouteSpec::default() };
        }
        assert!(Router::new(Vec::new(), Policy::default(), &[deep]).unwrap_err()[0].message.contains("deeper"));
        let many = vec![RouteSpec { goes_on: true, ..RouteSpec::default() }; ROUTES_MAX + 1];
        assert_eq!(Router::new(Vec::new(), Policy::default(), &many).unwrap_err().len(), 1);
    }

    #[test]
    fn a_route_that_nothing_reaches_is_noted() {
        let check = |first: &str, second: &str, noted: bool| {
            let tree = tree(&[route("a", first, &[]), route("b", second, &[])]);
            assert_eq!(!tree.notes().is_empty(), noted, "{first} {second}");
        };
        check("{}", r#"{"team":"SOC"}"#, true);
        check(r#"{"severity":"low"}"#, r#"{"severity":"high","team":"SOC"}"#, true);
        check(r#"{"severity":"high"}"#, r#"{"severity":"low"}"#, false);
        check(r#"{"team":["SOC","NETO"]}"#, r#"{"team":"SOC"}"#, true);
        check(r#"{"team":"SOC"}"#, r#"{"team":["SOC","NETO"]}"#, false);
        check(r#"{"team":"SOC"}"#, r#"{"host":"a"}"#, false);
        check(r#"{"kind":"rule"}"#, "{}", false);
        let goes_on = RouteSpec { goes_on: true, ..route("a", "{}", &[]) };
        assert!(tree(&[goes_on, route("b", "{}", &[])]).notes().is_empty());
    }
}
