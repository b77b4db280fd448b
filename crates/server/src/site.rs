//! What one HTTP listener of ours answers.

use crate::ingest_http::IngestSite;
use axum::Router;
use runtime::Stop;
use runtime::http::HttpLimits;
use runtime::tls::TlsFiles;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The pages of a role, or the ingest with its short way for events.
#[derive(Clone)]
pub enum Site {
    Pages(Router),
    Ingest(IngestSite),
}

impl From<Router> for Site {
    fn from(router: Router) -> Self {
        Self::Pages(router)
    }
}

impl Site {
    /// See [`runtime::http::serve`].
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<TlsFiles>>,
        limits: HttpLimits,
        stop: Stop,
    ) -> bool {
        match self {
            Self::Pages(router) => runtime::http::serve(listener, tls, router, limits, stop).await,
            Self::Ingest(site) => {
                let service = |peer| {
                    let site = site.clone();
                    hyper::service::service_fn(move |request| {
                        let site = site.clone();
                        async move { Ok(site.answer(request, peer).await) }
                    })
                };
                runtime::http::serve_with(listener, tls, service, limits, stop).await
            }
        }
    }
}
