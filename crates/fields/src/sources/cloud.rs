//! Audit logs of clouds and of services.

use super::{RENAMED_MAX, alias, get, set};
use model::Fields;
use std::borrow::Cow;

fn has(out: &Fields<'_>, names: &[&str]) -> bool {
    names.iter().all(|name| out.exists(name))
}

/// CloudTrail.
pub(super) fn aws(out: &mut Fields<'_>) -> bool {
    let trail = has(out, &["eventSource", "eventName", "eventVersion"])
        && out.first("eventSource").is_some_and(|source| source.ends_with(".amazonaws.com") || out.exists("awsRegion"));
    if trail {
        set(out, "aws", &[], &["cloudtrail"]);
    }
    trail
}

/// Categories of Azure, in lower case.
const SIGN_INS: &[&str] =
    &["signinlogs", "noninteractiveusersigninlogs", "serviceprincipalsigninlogs", "managedidentitysigninlogs"];
const ACTIVITIES: &[&str] = &[
    "administrative",
    "servicehealth",
    "resourcehealth",
    "alert",
    "autoscale",
    "policy",
    "security",
    "recommendation",
    "action",
    "write",
    "delete",
];

/// Activity, sign-in and audit logs as Azure exports them, and risk detections.
pub(super) fn azure(out: &mut Fields<'_>) -> bool {
    let category = out.first("category").or_else(|| out.first("Category")).unwrap_or_default();
    let is_one_of = |words: &[&str]| words.iter().any(|word| category.eq_ignore_ascii_case(word));
    let resource = || out.first("resourceId").or_else(|| out.first("ResourceId")).unwrap_or_default();
    let entra = || has_prefix(resource(), "/tenants/") || out.exists("tenantId") || out.exists("TenantId");
    let subscription = || has_prefix(resource(), "/subscriptions/");
    let operation = || out.exists("operationName") || out.exists("OperationName");
    let service = if is_one_of(SIGN_INS) && entra() {
        "signinlogs"
    } else if is_one_of(&["auditlogs"]) && entra() {
        "auditlogs"
    } else if is_one_of(ACTIVITIES) && subscription() && operation() {
        "activitylogs"
    } else if out.exists("riskEventType") || out.exists("properties.riskEventType") {
        set(out, "azure", &[], &["riskdetection", "pim"]);
        alias(out, "riskEventType", "properties.riskEventType");
        return true;
    } else {
        return false;
    };
    set(out, "azure", &[], &[service]);
    capitals(out);
    true
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// Rules for Azure call the same thing `properties.loggedByService`, `loggedByService` and
/// `LoggedByService`: all three become fields.
fn capitals(out: &mut Fields<'_>) {
    for at in 0..out.leaves().len().min(RENAMED_MAX) {
        let leaf = &out.leaves()[at];
        let (short, nested) = match leaf.name.strip_prefix("properties.") {
            Some(short) => (short, true),
            None => (&*leaf.name, false),
        };
        let capital: String = short.split('.').map(capital).collect::<Vec<_>>().join(".");
        let short = (nested && !out.exists(short)).then(|| short.to_owned());
        let capital = (capital != leaf.name).then_some(capital);
        for name in short.into_iter().chain(capital) {
            match out.leaves()[at].value.clone() {
                Some(value) => out.push(name, value),
                None => out.push_null(name),
            }
        }
    }
}

fn capital(word: &str) -> Cow<'_, str> {
    match word.as_bytes().first() {
        Some(first) if first.is_ascii_lowercase() => {
            Cow::Owned(format!("{}{}", char::from(first.to_ascii_uppercase()), &word[1..]))
        }
        _ => Cow::Borrowed(word),
    }
}

/// Cloud Audit Logs, and those of Google Workspace.
pub(super) fn gcp(out: &mut Fields<'_>) -> bool {
    let audit = out.first("protoPayload.@type").is_some_and(|kind| kind.ends_with("google.cloud.audit.AuditLog"));
    if audit {
        set(out, "gcp", &[], &["gcp.audit"]);
        for (ours, theirs) in [
            ("gcp.audit.method_name", "protoPayload.methodName"),
            ("gcp.audit.service_name", "protoPayload.serviceName"),
            ("data.protoPayload.methodName", "protoPayload.methodName"),
            ("data.protoPayload.resourceName", "protoPayload.resourceName"),
        ] {
            alias(out, ours, theirs);
        }
        if out.first("protoPayload.serviceName").is_some_and(|name| name == "admin.googleapis.com") {
            out.source.services = Some(super::known(&["gcp.audit", "google_workspace.admin"]));
            workspace(out);
        }
        return true;
    }
    let workspace_activity = out.first("kind") == Some("admin#reports#activity") && out.exists("id.applicationName");
    if workspace_activity {
        set(out, "gcp", &[], &[]);
        let application = get(out, "id.applicationName").unwrap_or_default();
        out.source.services = Some(vec![Cow::Owned(format!("google_workspace.{application}"))]);
        alias(out, "eventName", "events.name");
        if application == "admin" {
            out.push("eventService", "admin.googleapis.com");
        }
    }
    workspace_activity
}

fn workspace(out: &mut Fields<'_>) {
    for (ours, theirs) in
        [("eventService", "protoPayload.serviceName"), ("eventName", "protoPayload.metadata.event.eventName")]
    {
        alias(out, ours, theirs);
    }
}

/// The audit log of a Kubernetes API server.
pub(super) fn kubernetes(out: &mut Fields<'_>) -> bool {
    let audit = has(out, &["auditID", "verb", "stage"])
        || (out.first("kind") == Some("Event")
            && out.first("apiVersion").is_some_and(|version| version.starts_with("audit.k8s.io/")));
    if audit {
        set(out, "kubernetes", &["application"], &["audit"]);
        for (ours, theirs) in [
            ("apiGroup", "objectRef.apiGroup"),
            ("resource", "objectRef.resource"),
            ("namespace", "objectRef.namespace"),
            ("subresource", "objectRef.subresource"),
            ("username", "user.username"),
        ] {
            alias(out, ours, theirs);
        }
    }
    audit
}

/// The unified audit log of Microsoft 365.
pub(super) fn m365(out: &mut Fields<'_>) -> bool {
    let unified = has(out, &["Workload", "Operation", "RecordType"]);
    if unified {
        out.source.product = Some(Cow::Borrowed("m365"));
        out.source.categories = Some(Vec::new());
        // Which of Sigma's services an alert of the security centre is, the record does not say.
        out.source.services = match out.first("Workload") {
            Some("Exchange") => Some(super::known(&["exchange", "audit"])),
            Some("SecurityComplianceCenter") => Some(super::known(&["threat_management", "threat_detection", "audit"])),
            _ => None,
        };
        for (ours, theirs) in [("eventSource", "Workload"), ("eventName", "Name"), ("status", "Status")] {
            alias(out, ours, theirs);
        }
        alias(out, "eventName", "Operation");
    }
    unified
}

/// The system log of Okta.
pub(super) fn okta(out: &mut Fields<'_>) -> bool {
    let system = has(out, &["eventType", "published", "uuid"])
        && (out.exists("legacyEventType") || out.exists("actor.alternateId") || out.exists("outcome.result"));
    if system {
        set(out, "okta", &[], &["okta"]);
        lower_case(out);
    }
    system
}

/// Rules for Okta are written in the API's names, and some in the lower case of what collects it.
fn lower_case(out: &mut Fields<'_>) {
    for (ours, theirs) in [
        ("eventtype", "eventType"),
        ("displaymessage", "displayMessage"),
        ("actor.alternateid", "actor.alternateId"),
        ("securitycontext.isproxy", "securityContext.isProxy"),
        ("debugcontext.debugdata.requesturi", "debugContext.debugData.requestUri"),
    ] {
        alias(out, ours, theirs);
    }
}

/// The audit log of GitHub.
pub(super) fn github(out: &mut Fields<'_>) -> bool {
    let audit = has(out, &["actor", "@timestamp"])
        && out.first("action").is_some_and(|action| action.contains('.'))
        && (out.exists("_document_id")
            || (out.exists("created_at") && (out.exists("actor_id") || out.exists("org_id"))));
    if audit {
        set(out, "github", &[], &["audit"]);
    }
    audit
}

/// Events of OneLogin.
pub(super) fn onelogin(out: &mut Fields<'_>) -> bool {
    let events = has(out, &["event_type_id", "account_id"])
        && ["actor_user_id", "actor_system", "user_id", "risk_score"].iter().any(|name| out.exists(name));
    if events {
        set(out, "onelogin", &[], &["onelogin.events"]);
    }
    events
}
