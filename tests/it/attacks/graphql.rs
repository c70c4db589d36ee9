//! GraphQL documents that ask for too much.

use serde_json::json;

use crate::support::TestServer;

/// An introspection of all types that goes deeper, again and again, by these fields.
fn introspection(deeper: &str, at_last: &str, depth: usize) -> String {
    let braces = deeper.matches('{').count() * depth;
    format!("{{ __schema {{ types {{ {} {at_last} {} }} }} }}", deeper.repeat(depth), "}".repeat(braces))
}

fn whole_schema(n: usize) -> String {
    format!("__schema {{ types {{ name description fields {{ name description args {{ n{n}: name }} }} }} }} ")
}

/// Documents of a few hundred bytes, or as large as a request may be, that would take seconds or gigabytes to carry out.
fn attacks() -> Vec<(&'static str, String)> {
    let doubling: String =
        (0..30).map(|n| format!("fragment F{n} on Query {{ ...F{} ...F{} }} ", n + 1, n + 1)).collect();
    let lists = "jobs { nodes { workspace { ".repeat(6);
    vec![
        ("fragments that double", format!("{{ ...F0 }} {doubling} fragment F30 on Query {{ __typename }}")),
        ("lists in lists", format!("{{ {lists} id {} }}", "} } }".repeat(6))),
        ("brackets", "[".repeat(1_000_000)),
        ("braces", "{".repeat(1_000_000)),
        ("an argument of brackets", format!("{{ jobs(first: {}", "[".repeat(9_000))),
        ("fields", format!("{{ {} }}", "__typename ".repeat(100_000))),
        ("aliases", format!("{{ {} }}", (0..3_000).map(|n| format!("a{n}:__typename ")).collect::<String>())),
        ("directives", format!("{{ __typename {} }}", "@skip(if:false) ".repeat(1_500))),
        ("a string", format!("{{ job(id: \"{}\") {{ id }} }}", "x".repeat(1_500_000))),
        (
            "possible types of interfaces",
            introspection("interfaces { possibleTypes { ", "fields { name description } ", 3),
        ),
        (
            "the schema, again and again",
            format!("{{ {} }}", (0..90).map(|n| format!("a{n}: {}", whole_schema(n))).collect::<String>()),
        ),
        (
            "introspection in fragments",
            "{ ...S } fragment S on Query { __schema { types { ...A } } } \
             fragment A on __Type { fields { type { ...B ofType { ...B ofType { ofType { ...B } } } } } } \
             fragment B on __Type { fields { type { ...C ofType { ...C ofType { ofType { ...C } } } } } } \
             fragment C on __Type { fields { name description type { name ofType { fields { name description } } } } }"
                .to_owned(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_is_refused_before_it_costs_much() {
    let server = TestServer::with(&["--slots=0"]);
    server.data("{ __typename }", json!({})).await;
    let (memory, processor) = (server.peak_memory(), server.processor_time());
    let attacks = attacks();
    let rounds = 5;
    for _ in 0..rounds {
        for (name, document) in &attacks {
            assert_eq!(server.code(document, json!({})).await, "LIMIT_EXCEEDED", "{name}");
        }
    }
    // Any of them would take seconds, or as many gigabytes, to carry out.
    let each = (server.processor_time() - processor) / (rounds * attacks.len() as u32);
    assert!(each.as_millis() < 100, "an attack costs {each:?} of the processor");
    let more = (server.peak_memory() - memory) / 1024;
    assert!(more < 64, "{more} MiB more");
}

/// The introspection of graphql-js, which GraphiQL, GraphQL Code Generator, Apollo's tools and others send.
fn introspection_of_tools(with_all_options: bool) -> String {
    let option = |text: &'static str| if with_all_options { text } else { "" };
    let arguments = option("(includeDeprecated: true)");
    let deprecation = option("isDeprecated deprecationReason");
    let reference = (0..9).fold("kind name".to_owned(), |inner, _| format!("kind name ofType {{ {inner} }}"));
    format!(
        "query IntrospectionQuery {{ __schema {{ {} queryType {{ name kind }} mutationType {{ name kind }} \
         subscriptionType {{ name kind }} types {{ ...FullType }} directives {{ name description {} locations \
         args{arguments} {{ ...InputValue }} }} }} }} \
         fragment FullType on __Type {{ kind name description {} {} fields(includeDeprecated: true) {{ name description \
         args{arguments} {{ ...InputValue }} type {{ ...TypeRef }} isDeprecated deprecationReason }} \
         inputFields{arguments} {{ ...InputValue }} interfaces {{ ...TypeRef }} \
         enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }} \
         possibleTypes {{ ...TypeRef }} }} \
         fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue {deprecation} }} \
         fragment TypeRef on __Type {{ {reference} }}",
        option("description"),
        option("isRepeatable"),
        option("specifiedByURL"),
        option("isOneOf"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_introspection_of_tools_is_allowed() {
    let server = TestServer::with(&["--slots=0"]);
    for with_all_options in [false, true] {
        let schema = server.data(&introspection_of_tools(with_all_options), json!({})).await;
        assert!(schema["__schema"]["types"].as_array().expect("types").len() > 50);
    }
    let types = "query($name: String!) { __type(name: $name) { fields { name type { fields { name } } } } }";
    assert!(server.data(types, json!({ "name": "Job" })).await["__type"]["fields"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_introspection_costs_what_its_result_holds() {
    let server = TestServer::with(&["--slots=0", "--max-complexity=400"]);
    let types = "query($name: String!) { __type(name: $name) { fields { name type { ofType { fields { name type { name } } } } } } }";
    assert_eq!(server.code(types, json!({ "name": "Job" })).await, "LIMIT_EXCEEDED");
    server.data(types, json!({ "name": "LogLine" })).await;
    server.data(types, json!({ "name": "Nothing" })).await;
}
