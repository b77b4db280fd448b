//! The routing tree of the configuration: `[[routes]]`, and `[incidents]` for what they leave out.

use super::check::Check;
use super::raw;
use pipeline::notify::{MatcherSpec, Policy, PolicySpec, RouteSpec, Router};
use runtime::config::{Problem, nearest};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Keys of a route.
const KEYS: [&str; 14] = [
    "name",
    "match",
    "channels",
    "continue",
    "routes",
    "group",
    "group_by",
    "group_wait",
    "repeat_interval",
    "suppress_for",
    "resolve_after",
    "reopen_within",
    "escalate_after",
    "escalate_to",
];
const LIST: &str = "is a list of tables: write [[routes]] above each";

/// Reads the routes one by one, so that a mistake in one says in which.
pub fn read(written: Option<Value>, problems: &mut Vec<Problem>) -> Vec<RouteSpec> {
    level(written, "routes", problems)
}

fn level(written: Option<Value>, at: &str, problems: &mut Vec<Problem>) -> Vec<RouteSpec> {
    let items = match written {
        None => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            problems.push(Problem { path: at.to_owned(), message: LIST.to_owned() });
            return Vec::new();
        }
    };
    let mut routes = Vec::new();
    for (n, item) in items.into_iter().enumerate() {
        let path = format!("{at}[{n}]");
        match item {
            Value::Table(table) => routes.push(route(table, &path, problems)),
            _ => problems.push(Problem { path, message: LIST.to_owned() }),
        }
    }
    routes
}

fn route(mut table: Table, path: &str, problems: &mut Vec<Problem>) -> RouteSpec {
    for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let hint = nearest(key, KEYS.into_iter()).map_or(String::new(), |known| format!("; did you mean `{known}`?"));
        problems.push(Problem { path: format!("{path}.{key}"), message: format!("is not a setting{hint}") });
    }
    table.retain(|key, _| KEYS.contains(&key));
    let routes = level(table.remove("routes"), &format!("{path}.routes"), problems);
    let name = part(&mut table, "name", path, problems).unwrap_or_default();
    let matcher: Option<MatcherSpec> = part(&mut table, "match", path, problems);
    let channels = part(&mut table, "channels", path, problems);
    let goes_on = part(&mut table, "continue", path, problems).unwrap_or(false);
    // What is left is the policy, each key by itself.
    let policy = PolicySpec {
        group: part(&mut table, "group", path, problems),
        group_by: part(&mut table, "group_by", path, problems),
        group_wait: part(&mut table, "group_wait", path, problems),
        repeat_interval: part(&mut table, "repeat_interval", path, problems),
        suppress_for: part(&mut table, "suppress_for", path, problems),
        resolve_after: part(&mut table, "resolve_after", path, problems),
        reopen_within: part(&mut table, "reopen_within", path, problems),
        escalate_after: part(&mut table, "escalate_after", path, problems),
        escalate_to: part(&mut table, "escalate_to", path, problems),
    };
    RouteSpec { name, matcher: matcher.unwrap_or_default(), channels, goes_on, policy, routes }
}

fn part<T: DeserializeOwned>(table: &mut Table, key: &str, path: &str, problems: &mut Vec<Problem>) -> Option<T> {
    let value = table.remove(key)?;
    match value.try_into() {
        Ok(read) => Some(read),
        Err(error) => {
            problems.push(Problem { path: format!("{path}.{key}"), message: error.message().to_owned() });
            None
        }
    }
}

/// The tree over the configured channels.
pub(super) fn router(
    check: &mut Check<'_>,
    routes: &[RouteSpec],
    incidents: &raw::Incidents,
    channels: Vec<String>,
) -> Router {
    let spec = PolicySpec {
        group_wait: Some(incidents.group_wait.clone()),
        repeat_interval: Some(incidents.repeat_interval.clone()),
        suppress_for: Some(incidents.suppress_for.clone()),
        resolve_after: Some(incidents.resolve_after.clone()),
        reopen_within: Some(incidents.reopen_within.clone()),
        ..PolicySpec::default()
    };
    let mut problems = Vec::new();
    let root = Policy::default().with(&spec, "incidents", &mut problems);
    let router = Router::new(channels.clone(), root, routes).unwrap_or_else(|found| {
        problems.extend(found);
        Router::everybody(channels)
    });
    for problem in problems {
        check.problem(problem.path, problem.message);
    }
    router
}

#[cfg(test)]
mod tests {
    use crate::config::{Loaded, Overrides, load};
    use std::collections::BTreeMap;

    const CHANNELS: &str = "[[channel]]\ntype = \"moogsoft\"\nname = \"moog\"\nurl = \"http://127.0.0.1:9/a\"\n\
        [[channel]]\ntype = \"moogsoft\"\nname = \"pager\"\nurl = \"http://127.0.0.1:9/b\"\n";

    fn read(toml: &str) -> Result<Loaded, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("{CHANNELS}{toml}")).unwrap();
        load(Some(&file), &BTreeMap::new(), &Overrides::default())
            .map_err(|problems| problems.into_iter().map(|p| format!("{p}")).collect())
    }

    #[test]
    fn without_routes_everybody_is_told_and_the_times_are_the_documented_ones() {
        let router = read("").unwrap().config.router;
        assert_eq!(router.root(), &pipeline::notify::Policy::default());
        assert_eq!((router.routes().count(), router.channels()), (0, &["moog".to_owned(), "pager".to_owned()][..]));
    }

    #[test]
    fn routes_are_read_below_one_another_and_shown() {
        let loaded = read(
            "[incidents]\nrepeat_interval = \"1h\"\ngroup_wait = \"30s\"\n[[routes]]\nname = \"bad\"\nmatch = { severity = \"high\", host = \"db-*\" }\n\
             channels = [\"moog\"]\nescalate_after = \"15m\"\nescalate_to = [\"pager\"]\n[[routes.routes]]\nmatch = { team = \"SOC\" }\n\
             group_by = [\"rule\", \"host\"]\n[[routes]]\ncontinue = true\n[[routes]]\nmatch.kind = \"rule\"\n",
        )
        .unwrap();
        let router = &loaded.config.router;
        let first = router.routes().next().unwrap();
        let below = first.routes().next().unwrap();
        assert_eq!((first.name(), below.path()), ("bad", "routes[0].routes[0]"));
        assert_eq!(below.policy().repeat_interval.as_secs(), 3_600, "from [incidents]");
        assert_eq!((below.policy().group_wait.as_secs(), router.root().group_wait.as_secs()), (30, 30));
        assert_eq!(below.policy().escalation.as_ref().unwrap().to, ["pager"]);
        assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
        assert!(loaded.effective.contains("[[routes.routes]]"), "{}", loaded.effective);
        let notes = read("[[routes]]\n[[routes]]\nmatch.kind = \"rule\"\n").unwrap().notes;
        assert!(notes[0].starts_with("routes[1]: nothing reaches this route"), "{notes:?}");
    }

    #[test]
    fn mistakes_are_named_by_their_path() {
        let check = |toml: &str, expected: &[&str]| {
            let problems = read(toml).unwrap_err();
            assert_eq!(problems.len(), expected.len(), "{problems:?}");
            for (problem, begin) in problems.iter().zip(expected) {
                assert!(problem.starts_with(begin), "{problem} does not begin with {begin}");
            }
        };
        check(
            "[[routes]]\nchannels = [\"pagr\"]\n",
            &["routes[0].channels[0]: no channel is called `pagr`; did you mean `pager`?"],
        );
        check("[[routes]]\nchanels = []\n", &["routes[0].chanels: is not a setting; did you mean `channels`?"]);
        check("[[routes]]\nmatch = { hosts = \"a\" }\n", &["routes[0].match: unknown field `hosts`"]);
        check("[[routes]]\n[[routes.routes]]\nchannels = \"moog\"\n", &["routes[0].routes[0].channels: "]);
        check("[[routes]]\nrepeat_interval = \"4 hours\"\n", &["routes[0].repeat_interval: `4 hours` is not a time"]);
        check("[[routes]]\ngroup_wait = \"30d\"\n", &["routes[0].group_wait: is longer than 1h"]);
        check("[incidents]\nresolve_after = \"x\"\n", &["incidents.resolve_after: "]);
        check("[routes]\nname = \"x\"\n", &["routes: is a list of tables"]);
        check("[[routes]]\nescalate_after = \"5m\"\n", &["routes[0].escalate_to: is needed"]);
    }
}
