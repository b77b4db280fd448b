use super::{packaging, tool};

fn scripts() -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut walk = vec![packaging()];
    while let Some(dir) = walk.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk.push(path);
            } else if path.extension().is_some_and(|e| e == "sh") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_script_has_unix_line_ends_parses_and_pleases_shellcheck() {
    let scripts = scripts();
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        let path = script.to_str().unwrap();
        assert!(!std::fs::read(&script).unwrap().contains(&b'\r'), "{path}");
        tool("bash", &["-n", path]);
        tool("shellcheck", &["--external-sources", "--source-path=..", path]);
    }
}

#[test]
fn nothing_shipped_holds_a_key() {
    let mut walk = vec![packaging()];
    while let Some(dir) = walk.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text
                .lines()
                .filter(|l| !path.ends_with("tests/container-cases.sh") && !l.contains('$') && !l.starts_with('#'))
            {
                let Some((name, value)) = line.trim().trim_start_matches("- ").split_once(['=', ':']) else { continue };
                let secret = ["_API_KEY", "_PASS", "_PASSWORD", "SECRET_ID"].iter().any(|end| name.ends_with(end));
                let value = value.trim().trim_matches('"');
                assert!(!secret || value.is_empty() || value.starts_with("file:"), "{}: {line}", path.display());
            }
        }
    }
}
