use crate::config::{ChannelSettings, Overrides, load};
use connectors::channels::{ChannelConfig, SmtpTls};
use std::collections::BTreeMap;
use std::path::Path;

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// The paths of what is wrong with an environment.
fn problems(env: &[(&str, &str)]) -> Vec<String> {
    let found = load(None, &vars(env), &Overrides::default()).err().unwrap_or_default();
    found.into_iter().map(|p| p.path).collect()
}

#[test]
fn the_environments_mail_and_slack_are_channels_and_show_no_secret() {
    let mail = [("SMTP_HOST", "mail.example.com"), ("ALERT_EMAIL", "soc@example.com, noc@example.com")];
    let login = [("SMTP_PORT", "465"), ("SMTP_USER", "mutt@example.com"), ("SMTP_PASS", "hunter2")];
    let slack = [("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T0/B0/hunter2"), ("SLACK_CHANNEL", "#soc")];
    let all: Vec<_> = mail.iter().chain(&login).chain(&slack).copied().collect();
    let loaded = load(None, &vars(&all), &Overrides::default()).unwrap();
    let [ChannelSettings(email, follows), ChannelSettings(slack, url)] = &loaded.config.channels[..] else {
        panic!("two channels: {:?}", loaded.config.channels)
    };
    let (ChannelConfig::Email(email), ChannelConfig::Slack(slack)) = (email, slack) else { panic!("{email:?}") };
    assert_eq!((email.name.as_str(), email.port, email.tls), ("email", 465, SmtpTls::Implicit));
    assert_eq!(
        (email.from.as_str(), &email.to[..]),
        ("mutt@example.com", &["soc@example.com", "noc@example.com"].map(str::to_owned)[..])
    );
    assert_eq!((*follows, *url), (Some("SMTP_PASS"), Some("SLACK_WEBHOOK_URL")));
    assert_eq!((slack.target.name.as_str(), slack.channel.as_str()), ("slack", "#soc"));
    let shown = format!("{} {:?}", loaded.effective, loaded.config.channels);
    assert!(shown.contains("soc@example.com") && shown.contains("https://hooks.slack.com/***"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");

    let plain = load(None, &vars(&mail), &Overrides::default()).unwrap().config;
    let ChannelConfig::Email(email) = &plain.channels[0].0 else { panic!("no e-mail") };
    assert_eq!((email.port, email.tls, plain.channels[0].1), (587, SmtpTls::StartTls, None));
    assert!(email.from.starts_with("mutt@"), "{}", email.from);
    assert_eq!(problems(&mail[..1]), ["forwarder.email.to"]);
    assert_eq!(problems(&mail[1..]), ["forwarder.email.host"]);
    assert_eq!(problems(&[mail[0], mail[1], login[1]]), ["forwarder.email.password"]);
    assert_eq!(problems(&[("SLACK_CHANNEL", "#soc")]), ["forwarder.slack.url"]);
    assert_eq!(problems(&[("SLACK_WEBHOOK_URL", "ftp://hunter2")]), ["forwarder.slack.url"]);
}

#[test]
fn secrets_of_channels_come_from_files_and_from_vault_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let url = file("url", "https://hooks.slack.com/services/T0/B0/hunter2\n");
    for env in [("SLACK_WEBHOOK_URL_FILE", url.clone()), ("SLACK_WEBHOOK_URL", format!("file:{url}"))] {
        let config = load(None, &vars(&[(env.0, &env.1)]), &Overrides::default()).unwrap().config;
        let ChannelConfig::Slack(slack) = &config.channels[0].0 else { panic!("no Slack") };
        assert!(slack.target.url.ends_with("hunter2"), "{}", env.0);
    }
    assert_eq!(problems(&[("SLACK_WEBHOOK_URL", "file:/nosuch")]), ["SLACK_WEBHOOK_URL"]);

    let own = file("c.toml", "[[channel]]\ntype=\"slack\"\nname=\"s\"\n[[channel]]\ntype=\"pagerduty\"\nname=\"p\"\n");
    let load = |env: &[(&str, &str)]| load(Some(Path::new(&own)), &vars(env), &Overrides::default());
    let found: Vec<String> = load(&[]).unwrap_err().into_iter().map(|p| p.path).collect();
    assert_eq!(found, ["channel[0].url", "channel[1].routing_key"]);
    let vault = [("VAULT_ADDR", "https://vault:8200"), ("VAULT_ROLE_ID", "role"), ("MUTT_ROLES", "forwarder")];
    let config = load(&vault).unwrap().config;
    assert_eq!(config.required_secrets(), ["PAGERDUTY_ROUTING_KEY", "SLACK_WEBHOOK_URL"]);
    assert_eq!(config.awaits_vault(&config.channels[0]), Some("SLACK_WEBHOOK_URL"));
}

#[test]
fn channels_say_which_of_their_settings_is_wrong() {
    let found = |toml: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("[[channel]]\nname = \"c\"\n{toml}")).unwrap();
        let problems = load(Some(&file), &vars(&[]), &Overrides::default()).err().unwrap_or_default();
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>().join("; ")
    };
    let email = "type = \"email\"\nhost = \"mail.example.com\"\nto = [\"a@example.com\"]\nfrom = \"m@example.com\"\n";
    let slack = "type = \"slack\"\nurl = \"https://hooks.slack.com/services/T/B/x\"\n";
    let pagerduty = "type = \"pagerduty\"\nrouting_key = \"R0\"\n";
    let http = "type = \"http\"\nurl = \"https://h.example/\"\n";
    for good in [
        email.to_owned(),
        slack.to_owned(),
        pagerduty.to_owned(),
        http.to_owned(),
        format!("{email}dangerous_plaintext = true\ndangerous_plaintext_remote = true"),
        format!("{email}subject = \"{{{{ alert.title }}}}\"\nalert_url = \"https://m.example/{{id}}\""),
        format!("{slack}text = \"{{{{ alert.fields.src_ip }}}}\"\nformat = \"attachments\""),
        format!("{http}method = \"put\"\nheaders = {{ X-Token = \"t\" }}\nbody = \"[{{{{ alert.id }}}}]\""),
    ] {
        assert_eq!(found(&good), "", "{good}");
    }
    for (toml, says) in [
        (format!("{email}tls = \"maybe\""), "channel[0].tls: `maybe` is not one of"),
        (format!("{email}dangerous_plaintext = true"), "channel[0]: dangerous_plaintext reaches this host only"),
        (format!("{email}port = 70000"), "channel[0].port: is 70000"),
        (format!("{email}password = \"x\""), "channel[0].user: is needed for the password"),
        (format!("{email}to = []").replacen("to = [\"a@example.com\"]\n", "", 1), "channel[0].to: is empty"),
        (
            format!("{email}text = \"\"\"\nA\n{{{{ alert.titel }}}}\"\"\""),
            "channel[0]: the template `text` is wrong, line 2: there is no `alert.titel`; did you mean `alert.title`?",
        ),
        (format!("{slack}text = \"{{% for x %}}\""), "channel[0]: the template `text` is wrong: line 1: syntax error"),
        (format!("{http}body = \"{{{{ alert.title }}}} x\""), "is no JSON"),
        (format!("{http}body = \"file:/nosuch\""), "channel[0].body: the file `/nosuch` cannot be read"),
        (format!("{http}method = \"GET\""), "channel[0].method: `GET` is not one of POST, PUT"),
        (format!("{http}headers = {{ Host = \"x\" }}"), "channel[0]: the header `Host` is set by muttd"),
        (format!("{pagerduty}url = \"pd\""), "channel[0].url: is not a URL"),
        (format!("{slack}webhook = \"x\""), "channel[0]: unknown field `webhook`"),
    ] {
        assert!(found(&toml).contains(says), "{toml}: {}", found(&toml));
    }
}

#[test]
fn every_sample_of_the_documentation_of_channels_is_a_channel() {
    let documented = include_str!("../../../../../docs/channels.md");
    let samples: Vec<&str> =
        documented.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(samples.len() >= 6, "{}", samples.len());
    for sample in samples {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("slack_webhook", "https://hooks.slack.com/services/T/B/x"),
            ("smtp_password", "p"),
            ("pagerduty_key", "R0"),
            ("hook_authorization", "Bearer t"),
            ("webhook_secret", "0123456789abcdef0123456789abcdef"),
            ("moog_api_key", "k"),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let sample = sample.replace("file:/etc/mutt/", &format!("file:{}/", dir.path().display()));
        let file = dir.path().join("c.toml");
        std::fs::write(&file, &sample).unwrap();
        let loaded = load(Some(&file), &vars(&[]), &Overrides::default());
        assert!(loaded.as_ref().is_ok_and(|l| !l.config.channels.is_empty()), "{sample}\n{:?}", loaded.err());
    }
}
