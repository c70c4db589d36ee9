//! Which media type a client wants its answer in.

use axum::http::{HeaderMap, header};

/// The media types of answers to GraphQL operations, the one for a client that takes anything first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaType {
    Json,
    GraphqlResponse,
    EventStream,
}

impl MediaType {
    const ALL: [Self; 3] = [Self::Json, Self::GraphqlResponse, Self::EventStream];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GraphqlResponse => "application/graphql-response+json",
            Self::EventStream => "text/event-stream",
        }
    }

    /// The one that a client likes best, by its `Accept`: that with the highest weight, of these one that is named, of these the first.
    /// Nothing if it takes none.
    pub(super) fn best(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(header::ACCEPT) {
            return Some(Self::Json);
        }
        let accept = headers.get_all(header::ACCEPT);
        let ranges: Vec<Range<'_>> = accept
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .enumerate()
            .map(|(place, text)| Range::parse(place, text))
            .collect();
        let mut best: Option<(Rank, Self)> = None;
        for media_type in Self::ALL {
            // What is said of the media type itself counts, not what is said of more.
            let range = ranges.iter().filter(|it| it.takes(media_type)).max_by_key(|it| it.precision);
            let Some(rank) = range.map(Range::rank).filter(|rank| rank.weight > 0) else { continue };
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, media_type));
            }
        }
        best.map(|(_, media_type)| media_type)
    }
}

/// How much a media type is liked: compared from the top.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    weight: u16,
    precision: u8,
    place: std::cmp::Reverse<usize>,
}

/// A part of an `Accept`.
struct Range<'a> {
    place: usize,
    name: &'a str,
    /// 2 for a media type, 1 for `type/*`, 0 for `*/*`.
    precision: u8,
    /// In thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    fn parse(place: usize, text: &'a str) -> Self {
        let mut pieces = text.split(';').map(str::trim);
        let name = pieces.next().unwrap_or_default();
        let precision = match name {
            "*/*" => 0,
            name if name.ends_with("/*") => 1,
            _ => 2,
        };
        let weight = pieces.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q=")));
        let weight = weight.and_then(|it| it.parse::<f32>().ok()).unwrap_or(1.0);
        Self { place, name, precision, weight: (weight.clamp(0.0, 1.0) * 1000.0) as u16 }
    }

    fn takes(&self, media_type: MediaType) -> bool {
        match self.precision {
            2 => self.name.eq_ignore_ascii_case(media_type.name()),
            // An event stream is for those who ask for it.
            _ if media_type == MediaType::EventStream => false,
            1 => self.name.eq_ignore_ascii_case("application/*"),
            _ => true,
        }
    }

    fn rank(&self) -> Rank {
        Rank { weight: self.weight, precision: self.precision, place: std::cmp::Reverse(self.place) }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn best(accept: &'static str) -> Option<&'static str> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        MediaType::best(&headers).map(MediaType::name)
    }

    #[test]
    fn the_media_type_is_the_one_that_is_liked_best() {
        let json = Some("application/json");
        let graphql = Some("application/graphql-response+json");
        let events = Some("text/event-stream");
        assert_eq!(MediaType::best(&HeaderMap::new()), Some(MediaType::Json));
        for (accept, expected) in [
            ("", None),
            ("*/*", json),
            ("application/*", json),
            ("text/html, */*;q=0.1", json),
            ("application/json", json),
            ("Application/JSON; charset=utf-8", json),
            ("application/graphql-response+json", graphql),
            ("application/graphql-response+json, application/json", graphql),
            ("application/json, application/graphql-response+json", json),
            ("application/json;q=0.5, application/graphql-response+json;q=0.6", graphql),
            ("application/graphql-response+json;q=0.5, application/json", json),
            ("application/graphql-response+json, */*", graphql),
            ("application/json;q=0, */*", graphql),
            ("application/json;q=0, application/*;q=0.3", graphql),
            ("text/event-stream", events),
            ("text/event-stream;q=0.9, application/json;q=0.1", events),
            ("application/json, text/event-stream;q=0.9", json),
            ("text/*", None),
            ("text/html", None),
            ("application/json;q=0", None),
            ("*/*;q=0", None),
        ] {
            assert_eq!(best(accept), expected, "{accept}");
        }
    }
}
