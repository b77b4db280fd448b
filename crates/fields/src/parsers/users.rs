//! Changes of users and groups by the shadow suite: `useradd`, `usermod`, `groupadd`, `passwd`, …

use super::text::rsplit;
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "users",
    programs: &[
        "useradd", "usermod", "userdel", "adduser", "deluser", "groupadd", "groupmod", "groupdel", "gpasswd", "passwd",
        "chpasswd", "chage", "chfn", "chsh", "newusers", "vipw",
    ],
    sniff: None,
    product: Some("linux"),
    services: &["auth", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    parse(line.text.trim_end(), out).is_some()
}

fn parse<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    // `new user: name=eve, UID=0, GID=0, home=/home/eve, shell=/bin/bash, from=/dev/pts/0`
    for (start, action) in [("new user: ", "user_added"), ("new group: ", "group_added")] {
        let Some(rest) = text.strip_prefix(start) else { continue };
        out.action(action, Some(true));
        for (name, value) in rest.split(", ").filter_map(|pair| pair.split_once('=')) {
            match name {
                "name" if action == "user_added" => out.push("TargetUser", value),
                "name" => out.push("TargetGroup", value),
                "UID" => out.push("uid", value),
                "GID" => out.push("gid", value),
                "home" => out.push("home", value),
                "shell" => out.push("shell", value),
                _ => {}
            }
        }
        return Some(());
    }
    // `failed adding user 'eve', exit code: 9`
    if let Some(rest) = text.strip_prefix("failed adding user '") {
        out.action("user_added", Some(false));
        out.push("TargetUser", rest.split_once('\'')?.0);
        return Some(());
    }
    // `add 'eve' to group 'sudo'`, `delete 'eve' from shadow group 'x'`, `remove …`
    for (start, between, action) in [
        ("add '", "group '", "group_member_added"),
        ("delete '", "group '", "group_member_removed"),
        ("remove '", "group '", "group_member_removed"),
    ] {
        let Some((user, rest)) = text.strip_prefix(start).and_then(|rest| rest.split_once('\'')) else { continue };
        let Some((_, group)) = rest.split_once(between) else { continue };
        out.action(action, Some(true));
        out.push("TargetUser", user);
        out.push("TargetGroup", group.trim_end_matches('\''));
        return Some(());
    }
    // `user eve added by root to group sudo`, of gpasswd
    if let Some(rest) = text.strip_prefix("user ")
        && let Some((user, rest)) = rest.split_once(" added by ")
    {
        let (by, group) = rest.split_once(" to group ")?;
        out.action("group_member_added", Some(true));
        out.push("TargetUser", user);
        out.push("User", by);
        out.push("TargetGroup", group);
        return Some(());
    }
    for (start, action) in [
        ("delete user '", "user_deleted"),
        ("change user '", "user_changed"),
        ("lock user '", "user_locked"),
        ("unlock user '", "user_unlocked"),
        ("changed user '", "user_changed"),
    ] {
        let Some((user, rest)) = text.strip_prefix(start).and_then(|rest| rest.split_once('\'')) else { continue };
        out.action(action, Some(true));
        out.push("TargetUser", user);
        out.some("change", Some(rest.trim_start()));
        return Some(());
    }
    for start in ["removed group '", "remove group '", "group '"] {
        let Some((group, _)) = text.strip_prefix(start).and_then(|rest| rest.split_once('\'')) else { continue };
        out.action(if start == "group '" { "group_changed" } else { "group_deleted" }, Some(true));
        out.push("TargetGroup", group);
        return Some(());
    }
    // `password for 'eve' changed by 'root'`, of passwd and chpasswd
    let (user, by) = rsplit(text.strip_prefix("password for '")?, "' changed by '")?;
    out.action("password_changed", Some(true));
    out.push("TargetUser", user);
    out.push("User", by.trim_end_matches('\''));
    Some(())
}
