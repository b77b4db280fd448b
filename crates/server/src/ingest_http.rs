//! The ingest listener whole: the ingest routes, `/health`, `/metrics`, `/`, and the answer to
//! everything else, which asks for the key before it says what exists (contract mutt §2.1).

use crate::worker_http::{RoleHealth, version_headers};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use connectors::inputs::http::{HttpIngest, correlation_id};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::coordination::Coordination;

#[derive(Clone)]
struct Rest {
    ingest: HttpIngest,
    coordination: Arc<dyn Coordination>,
    version_prefix: bool,
    /// Settings to show under `/admin/config`; holds no key.
    shown: Arc<BTreeMap<&'static str, String>>,
}

/// `shown`: settings for `/admin/config`.
pub fn router(
    ingest: HttpIngest,
    health: RoleHealth,
    coordination: Arc<dyn Coordination>,
    shown: BTreeMap<&'static str, String>,
) -> Router {
    let rest =
        Rest { ingest: ingest.clone(), coordination, version_prefix: health.version_prefix, shown: Arc::new(shown) };
    let mut routes = ingest.router().merge(health.router());
    routes = routes.route("/", get(index));
    let admin = Router::new().route("/admin/config", get(admin_config)).with_state(rest.clone());
    routes
        .merge(admin)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(rest, key_before_route))
}

const PUBLIC: [&str; 3] = ["/", "/health", "/metrics"];
const INGEST: [&str; 3] = ["/ingest", "/api/v1/ingest", "/api/v2/ingest"];

/// The ingest handler checks the key itself (and counts); for everything else that is not public it
/// is checked here.
async fn key_before_route(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let checked_there = request.method() == axum::http::Method::POST && INGEST.contains(&path.as_str());
    let public = PUBLIC.contains(&path.as_str());
    let mut response = if public || checked_there || rest.ingest.key_org(request.headers()).is_some() {
        next.run(request).await
    } else {
        let body = json!({
            "status": "error",
            "message": "Unauthorized",
            "correlation_id": &*correlation_id(request.headers()),
        });
        (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response()
    };
    version_headers(response.headers_mut(), &path, rest.version_prefix);
    response
}

async fn index() -> Response {
    axum::Json(json!({
        "service": "MUTT Ingestor Service",
        "version": "2.3",
        "description": "Takes events by HTTP and keeps them durably",
        "endpoints": {
            "ingest": "POST /ingest, /api/v1/ingest, /api/v2/ingest (X-API-KEY; one object, an array, or NDJSON)",
            "health": "GET /health",
            "metrics": "GET /metrics",
            "info": "GET /",
        },
    }))
    .into_response()
}

async fn admin_config(State(rest): State<Rest>) -> Response {
    match rest.coordination.settings().await {
        Ok(dynamic) => axum::Json(json!({
            "dynamic_config_enabled": true,
            "static": &*rest.shown,
            "dynamic": dynamic,
        }))
        .into_response(),
        Err(error) => {
            tracing::error!(%error, "live settings cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!({"error": "live settings cannot be read"})))
                .into_response()
        }
    }
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, axum::Json(json!({"status": "error", "message": "Not Found"}))).into_response()
}

async fn wrong_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(json!({"status": "error", "message": "Method Not Allowed"})))
        .into_response()
}
