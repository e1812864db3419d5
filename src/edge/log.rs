//! The public half of the ledger: checkpoints and hash tiles as C2SP tlog-tiles lays them out.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Surface, Unavailable,
    answer::{self, Front},
};
use crate::{ledger::tile::TileName, refusal::Refusal};

/// The newest checkpoint: never cached, for it is what tells that there is something new.
pub(super) async fn checkpoint(State(surface): State<Arc<Surface>>) -> Response {
    match surface.log.checkpoint().await {
        Ok(Some(note)) => (
            [
                (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            ],
            note,
        )
            .into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => unavailable(&error),
    }
}

/// One tile. A full one never changes; a partial one does not either, but soon nobody asks for it again.
pub(super) async fn tile(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    let path = request.uri().path();
    let inside = path.strip_prefix(surface.our_issuer.path());
    // Not decoded, and in its one spelling: one tile has one cache entry (threat H09).
    let named = inside
        .and_then(|rest| rest.strip_prefix("/ledger/tile/"))
        .and_then(|name| name.parse::<TileName>().ok());
    let Some(tile) = named else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match surface.log.tile(tile).await {
        Ok(Some(hashes)) => {
            let cache = if tile.is_full() {
                "public, max-age=31536000, immutable"
            } else {
                "public, max-age=60"
            };
            (
                [
                    (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
                    (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
                ],
                hashes,
            )
                .into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Unavailable) -> Response {
    tracing::warn!("the public half of the ledger is {}", crate::telemetry::Plain(&error));
    answer::unattributed(&Refusal::NotReady("ledger".to_owned()), Front::TokenExchange)
}
