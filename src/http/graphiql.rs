//! GraphiQL, the page at `/`.

use async_graphql::http::GraphiQLSource;
use axum::response::Html;

/// The page. Its scripts come from a CDN.
pub(super) async fn page() -> Html<String> {
    Html(GraphiQLSource::build().title("Jobstream").endpoint("/graphql").subscription_endpoint("/graphql").finish())
}
