//! What every catalog must do. `open(name)` gives the catalog called `name`: empty the first time,
//! afterwards with what was in it (the one before is dropped by then).

#![expect(clippy::unwrap_used, reason = "a test suite")]

mod agents;
mod detection_rules;
mod fleet;
mod history;
mod incidents;
mod schedules;
mod settings;
mod users;

use super::{Actor, Catalog, PageRequest};
use model::{ErrorKind, EventId, Handling, MatchType, OrgId, RuleDraft, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Runs every check.
pub async fn run(open: impl AsyncFn(&'static str) -> Arc<dyn Catalog>) {
    settings::every_field_of_a_rule_comes_back(&open).await;
    settings::rules_are_ordered_by_priority_then_id(&open("order").await).await;
    settings::rules_are_created_all_or_none(&open("all or none").await).await;
    settings::a_rule_changed_meanwhile_is_a_conflict(&open("conflict").await).await;
    settings::of_two_updates_at_once_one_wins(&open("race").await).await;
    settings::ids_of_rules_are_never_given_again(&open).await;
    settings::bad_rules_are_invalid(&open("invalid").await).await;
    settings::hosts_and_teams_are_kept_sorted_and_unique(&open("hosts").await).await;
    settings::organisations_never_see_each_other(&open("orgs").await).await;
    settings::every_change_moves_the_revision_and_nothing_else_does(&open).await;
    settings::every_change_is_audited_with_old_and_new_values(&open("audited").await).await;
    settings::a_refused_change_leaves_no_trace(&open("refused").await).await;
    history::recording_again_changes_nothing(&open).await;
    history::deleting_a_rule_keeps_history(&open("history").await).await;
    history::audit_rows_are_filtered_and_paged_newest_first(&open("audit pages").await).await;
    history::a_cursor_meets_each_row_once_whatever_arrives(&open("cursor").await).await;
    history::config_changes_are_filtered_and_wildcards_mean_themselves(&open("changes").await).await;
    history::old_rows_are_purged_in_batches(&open("purge").await).await;
    history::alerts_go_from_pending_to_an_end(&open).await;
    history::alerts_are_filtered_and_paged(&open("alert pages").await).await;
    history::texts_that_no_database_likes_are_recorded_and_found(&open("hostile").await).await;
    history::wrong_clocks_are_recorded_and_listed(&open("clocks").await).await;
    history::the_same_batch_by_several_workers_counts_once(&open("workers").await).await;
    history::what_is_archived_leaves_the_log_once(&open("archive").await).await;
    history::steps_of_one_alert_in_one_batch_end_as_one_by_one(&open("steps").await).await;
    history::a_batch_of_another_organisation_is_refused_whole(&open("foreign").await).await;
    incidents::alerts_of_one_cause_count_once_and_one_of_them_is_told(&open).await;
    incidents::the_same_alerts_by_several_workers_make_one_incident(&open("incident workers").await).await;
    incidents::people_move_incidents_and_it_is_audited(&open("incident moves").await).await;
    incidents::incidents_are_filtered_and_paged(&open("incident pages").await).await;
    incidents::what_is_quiet_is_resolved_by_itself(&open("quiet").await).await;
    incidents::an_incident_is_escalated_once_whoever_tries(&open("escalation").await).await;
    incidents::what_waits_for_others_is_told_once_whoever_tries(&open("waiting").await).await;
    incidents::audit_rows_say_whether_somebody_was_told(&open("forwarded").await).await;
    incidents::silences_hold_until_they_are_over(&open("silences").await).await;
    incidents::keys_and_names_that_no_database_likes_are_kept_apart(&open("incident keys").await).await;
    incidents::closed_incidents_and_old_silences_are_purged(&open("incident purge").await).await;
    detection_rules::documents_and_settings_come_back(&open).await;
    detection_rules::a_new_text_is_a_version_and_the_same_one_is_none(&open("document versions").await).await;
    detection_rules::a_removed_document_counts_on_when_it_returns(&open("document returns").await).await;
    detection_rules::a_document_has_to_be_as_expected(&open("document expected").await).await;
    detection_rules::documents_change_all_or_none(&open("documents all or none").await).await;
    detection_rules::bad_documents_and_settings_are_invalid(&open("documents invalid").await).await;
    detection_rules::of_many_versions_the_last_are_kept(&open("document pruning").await).await;
    detection_rules::documents_and_settings_of_organisations_are_apart(&open("documents of orgs").await).await;
    detection_rules::of_writers_at_once_none_is_lost(&open("documents race").await).await;
    detection_rules::every_change_moves_the_detection_revision_alone(&open("detection revision").await).await;
    detection_rules::changes_are_audited_without_their_texts(&open("documents audited").await).await;
    detection_rules::a_whole_collection_comes_and_goes_in_one_call(&open("documents many").await).await;
    detection_rules::the_texts_of_an_organisation_are_bounded_together(&open("documents bytes").await).await;
    schedules::a_rule_comes_further_and_what_it_missed_is_kept(&open).await;
    schedules::schedules_are_apart_and_bounded(&open("schedule bounds").await).await;
    users::users_and_keys_come_back(&open).await;
    users::logins_follow_roles_revocation_and_removal(&open("logins").await).await;
    users::users_of_organisations_are_apart(&open("users of orgs").await).await;
    users::keys_are_bounded(&open("keys").await).await;
    users::changes_of_users_and_keys_are_audited_without_secrets(&open("users audited").await).await;
    fleet::organisations_come_back(&open).await;
    fleet::users_of_a_disabled_organisation_are_nobody(&open("users of a disabled org").await).await;
    fleet::tokens_come_back(&open).await;
    fleet::tokens_are_revoked_and_rotated(&open("fleet rotation").await).await;
    fleet::tokens_of_organisations_are_apart(&open("tokens of orgs").await).await;
    fleet::of_ended_tokens_the_newest_are_kept(&open("ended tokens").await).await;
    fleet::changes_of_the_fleet_are_audited_without_fingerprints(&open("fleet audited").await).await;
    agents::agents_come_in_and_come_back(&open).await;
    agents::a_token_gives_as_many_certificates_as_it_may(&open("uses").await).await;
    agents::bad_tokens_give_nothing(&open("bad tokens").await).await;
    agents::names_are_taken_by_rule(&open("agent names").await).await;
    agents::of_copies_that_enrol_at_once_each_has_its_own_name(&open("copies").await).await;
    agents::old_agents_register_by_their_logins(&open("old agents").await).await;
    agents::an_organisation_has_as_many_agents_as_it_may(&open("agents max").await).await;
    agents::agents_are_seen(&open("sightings").await).await;
    agents::a_thousand_agents_are_seen_at_once(&open("many sightings").await).await;
    agents::agents_fall_silent_once_whoever_asks(&open("silent agents").await).await;
    agents::agents_are_filtered_and_paged(&open("agent pages").await).await;
    agents::agents_are_revoked_and_removed(&open("revoked agents").await).await;
    agents::agents_of_organisations_are_apart(&open("agents of orgs").await).await;
    open("ping").await.ping().await.unwrap();
}

type Store = Arc<dyn Catalog>;

/// 2026-03-10T12:00:00Z plus `secs`.
fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_773_144_000).plus(Duration::from_secs(secs))
}

fn org(name: &str) -> OrgId {
    name.parse().unwrap()
}

fn home() -> OrgId {
    OrgId::default()
}

fn admin(secs: u64) -> Actor {
    Actor { name: "Admin".into(), reason: Some("because".into()), correlation_id: "c-1".into(), at: at(secs) }
}

fn draft(text: &str) -> RuleDraft {
    RuleDraft {
        match_string: Some(text.into()),
        trap_oid: None,
        syslog_severity: None,
        match_type: MatchType::Contains,
        priority: RuleDraft::DEFAULT_PRIORITY,
        prod_handling: Handling::new("Page_and_ticket"),
        dev_handling: Handling::new("Ignore"),
        team_assignment: "NETO".into(),
        is_active: true,
    }
}

fn event_id(secs: u64, number: u64) -> EventId {
    EventId::new(at(secs), 7, number)
}

fn page(page: u64, limit: u64) -> PageRequest {
    PageRequest { page, limit }
}

fn kind<T: std::fmt::Debug>(result: crate::StorageResult<T>) -> ErrorKind {
    result.unwrap_err().kind()
}
