//! The two audit logs: changes of the configuration, and events that a rule took.

use super::Api;
use super::auth::Viewer;
use super::error::{ApiError, ApiResult};
use super::params::{Params, pagination_to};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;
use storage::catalog::{AuditFilter, AuditRow, ConfigChange, ConfigChangeFilter, Page, PageRequest};

/// What can be done to a row.
pub const OPERATIONS: [&str; 3] = ["CREATE", "UPDATE", "DELETE"];

/// `/audit`: with old and new values.
pub async fn logs(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let (page, found) = config_changes(&api, &params).await?;
    let logs: Vec<Value> = found.rows.iter().map(with_values).collect();
    Ok(Json(json!({ "logs": logs, "pagination": pagination_to(page, &found) })))
}

/// `/config-audit`: without them.
pub async fn changes(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let (page, found) = config_changes(&api, &params).await?;
    let changes: Vec<Value> = found.rows.iter().map(without_values).collect();
    Ok(Json(json!({ "changes": changes, "pagination": pagination_to(page, &found) })))
}

async fn config_changes(api: &Api, params: &Params) -> ApiResult<(PageRequest, Page<ConfigChange>)> {
    let filter = ConfigChangeFilter {
        changed_by: params.bounded("changed_by")?,
        operation: params.read("operation", "one of CREATE, UPDATE, DELETE", |text| {
            OPERATIONS.into_iter().find(|known| known.eq_ignore_ascii_case(text)).map(str::to_owned)
        })?,
        table_name: params.bounded("table_name")?,
        record_id: params.id("record_id")?,
        from: params.from("start_date")?,
        to: params.to("end_date")?,
        after: None,
    };
    config_page(api, params, filter).await
}

/// One page of changes; also what `/config/history` shows.
pub async fn config_page(
    api: &Api,
    params: &Params,
    filter: ConfigChangeFilter,
) -> ApiResult<(PageRequest, Page<ConfigChange>)> {
    let page = params.page()?;
    in_order(filter.from <= filter.to || filter.to.is_none())?;
    let filter = ConfigChangeFilter { after: params.cursor(page)?, ..filter };
    let work = api.deps.catalog.config_changes(&api.deps.org, &filter, page);
    let found = api.ask("config_audit_list", work).await?;
    Ok((page, found))
}

fn in_order(ordered: bool) -> ApiResult<()> {
    if ordered { Ok(()) } else { Err(ApiError::invalid("end_date: it is before start_date")) }
}

fn without_values(change: &ConfigChange) -> Value {
    json!({
        "id": change.id,
        "changed_at": change.changed_at.rfc1123(),
        "changed_by": change.changed_by,
        "operation": change.operation,
        "table_name": change.table_name,
        "record_id": change.record_id,
        "reason": change.reason,
        "correlation_id": change.correlation_id,
    })
}

fn with_values(change: &ConfigChange) -> Value {
    let mut row = without_values(change);
    row["old_values"] = values(change.old_values.as_deref());
    row["new_values"] = values(change.new_values.as_deref());
    row
}

/// The values as the JSON they are; as text where they are none.
pub fn values(text: Option<&str>) -> Value {
    match text {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        None => Value::Null,
    }
}

/// `/audit-logs`: events that a rule took.
pub async fn events(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let page = params.page()?;
    let filter = AuditFilter {
        hostname: params.bounded("hostname")?,
        rule_id: params.id("rule_id")?,
        event_id: params.read("event_id", "an event id, evt_…", |text| text.parse().ok())?,
        from: params.from("start_date")?,
        to: params.to("end_date")?,
        after: params.cursor(page)?,
    };
    in_order(filter.from <= filter.to || filter.to.is_none())?;
    let found = api.ask("audit_logs_list", api.deps.catalog.audit_log(&api.deps.org, &filter, page)).await?;
    let logs: Vec<Value> = found.rows.iter().map(event_row).collect();
    Ok(Json(json!({ "logs": logs, "pagination": pagination_to(page, &found) })))
}

/// All columns of `event_audit_log`, and the event's id.
pub fn event_row(row: &AuditRow) -> Value {
    let entry = &row.entry;
    json!({
        "id": row.id,
        "event_id": entry.event_id.to_string(),
        "event_timestamp": entry.event_timestamp.rfc1123(),
        "hostname": entry.hostname,
        "matched_rule_id": entry.matched_rule_id,
        "handling_decision": entry.handling_decision,
        "forwarded_to_moog": entry.forwarded,
        "raw_message": row.has_raw.then(|| String::from_utf8_lossy(&entry.raw_message)),
    })
}
