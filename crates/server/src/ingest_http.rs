//! The ingest listener whole: the ingest routes, `/health`, `/metrics`, `/`, and the answer to
//! everything else, which asks for the key before it says what exists (contract mutt §2.1).

use crate::worker_http::{RoleHealth, is_deprecated, version_headers};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use bytes::Bytes;
use connectors::inputs::http::{HttpIngest, correlation_id};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use pipeline::metrics::Metrics;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use storage::coordination::Coordination;
use tower::ServiceExt;
use tracing::Instrument as _;

/// What answers on the ingest listener. Posts of events take the short way past the router.
#[derive(Clone)]
pub struct IngestSite {
    ingest: HttpIngest,
    pages: Router,
    metrics: Arc<Metrics>,
    version_prefix: bool,
}

/// The correlation id of a request for a page.
#[derive(Clone)]
struct Correlation(Arc<str>);

#[derive(Clone)]
struct Admin {
    coordination: Arc<dyn Coordination>,
    /// Settings to show under `/admin/config`; holds no key.
    shown: Arc<BTreeMap<&'static str, String>>,
}

impl IngestSite {
    /// `shown`: settings for `/admin/config`.
    pub fn new(
        ingest: HttpIngest,
        health: RoleHealth,
        coordination: Arc<dyn Coordination>,
        shown: BTreeMap<&'static str, String>,
    ) -> Self {
        let (version_prefix, metrics) = (health.version_prefix, Arc::clone(&health.metrics));
        let admin = Admin { coordination, shown: Arc::new(shown) };
        let pages = Router::new()
            .route("/", get(index))
            .route("/admin/config", get(admin_config))
            .with_state(admin)
            .route("/ingest", any(wrong_method))
            .route("/api/v1/ingest", any(wrong_method))
            .route("/api/v2/ingest", any(wrong_method))
            .merge(health.router())
            .fallback(not_found)
            .method_not_allowed_fallback(wrong_method);
        Self { ingest, pages, metrics, version_prefix }
    }

    /// Answers one request of `peer`.
    pub async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Either<Full<Bytes>, Body>> {
        let started = tokio::time::Instant::now();
        let deprecated = is_deprecated(request.uri().path());
        let (method, route) = (request.method().clone(), route(request.uri().path()));
        let mut response = if HttpIngest::is_for(request.method(), request.uri().path()) {
            // It checks the key itself, and counts.
            let (head, body) = request.into_parts();
            self.ingest.handle(&head.headers, body, peer).await.map(|body| Either::Left(Full::new(body)))
        } else {
            // Boxed: it is the larger by far, and every answer would be as large.
            Box::pin(self.page(request)).await.map(Either::Right)
        };
        version_headers(response.headers_mut(), deprecated, self.version_prefix);
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.count_request(&method, route.into(), response.status().as_u16(), seconds);
        response
    }

    async fn page(&self, request: Request<Incoming>) -> Response<Body> {
        let correlation = correlation_id(request.headers());
        let span = tracing::error_span!("request", correlation_id = &*correlation);
        self.page_within(request, &correlation).instrument(span).await
    }

    async fn page_within(&self, mut request: Request<Incoming>, correlation: &Arc<str>) -> Response<Body> {
        if !PUBLIC.contains(&request.uri().path()) && self.ingest.key_org(request.headers()).is_none() {
            return refusal(StatusCode::UNAUTHORIZED, "Unauthorized", correlation);
        }
        request.extensions_mut().insert(Correlation(Arc::clone(correlation)));
        match self.pages.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// The path as a metric label, if it is one of ours.
fn route(path: &str) -> &'static str {
    const ROUTES: [&str; 7] =
        ["/ingest", "/api/v1/ingest", "/api/v2/ingest", "/", "/health", "/metrics", "/admin/config"];
    ROUTES.into_iter().find(|route| *route == path).unwrap_or("other")
}

const PUBLIC: [&str; 3] = ["/", "/health", "/metrics"];

async fn index() -> Response<Body> {
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

async fn admin_config(
    State(admin): State<Admin>,
    Extension(Correlation(id)): Extension<Correlation>,
) -> Response<Body> {
    match admin.coordination.settings().await {
        Ok(dynamic) => axum::Json(json!({
            "dynamic_config_enabled": true,
            "static": &*admin.shown,
            "dynamic": dynamic,
        }))
        .into_response(),
        Err(error) => {
            tracing::error!(%error, "live settings cannot be read");
            let body = json!({"error": "live settings cannot be read", "correlation_id": &*id});
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
        }
    }
}

async fn not_found(Extension(Correlation(id)): Extension<Correlation>) -> Response<Body> {
    refusal(StatusCode::NOT_FOUND, "Not Found", &id)
}

async fn wrong_method(Extension(Correlation(id)): Extension<Correlation>, uri: Uri) -> Response<Body> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", &id);
    let allowed = if uri.path().ends_with("/ingest") { "POST" } else { "GET, HEAD" };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A refusal as the input itself words its own.
fn refusal(status: StatusCode, message: &str, correlation: &str) -> Response<Body> {
    let body = json!({ "status": "error", "message": message, "correlation_id": correlation });
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(value) = HeaderValue::from_str(correlation) {
        response.headers_mut().insert("x-correlation-id", value);
    }
    response
}
