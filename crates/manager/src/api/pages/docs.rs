//! `/docs/`: the documentation of this version, as a browser shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, Redirect};
use axum::routing::get;
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use crate::app::App;
use crate::error::{Error, Result};

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../../docs/", $name, ".md")))),*]
    };
}

/// Name and text of every page, in the order in which they are read.
const PAGES: &[(&str, &str)] = pages![
    "peers",
    "lifecycle",
    "warm-starts",
    "images",
    "sandbox",
    "egress",
    "network",
    "cli",
    "clients",
    "configuration",
    "webhooks",
    "deployment",
    "firecracker",
    "metrics",
];

static RENDERED: LazyLock<BTreeMap<&str, String>> =
    LazyLock::new(|| PAGES.iter().map(|&(name, text)| (name, page(&title(text), &render(text)))).collect());

static CONTENTS: LazyLock<String> = LazyLock::new(|| {
    let items = PAGES.iter().map(|(name, text)| format!("- [{}]({name}.md)\n", title(text)));
    let text = format!(
        "# Documentation\n\n{}\nThe API is described at [/swagger/](/swagger/), and for programs at [/openapi.json](/openapi.json).\n",
        items.collect::<String>()
    );
    page("Documentation", &render(&text))
});

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/docs", get(async || Redirect::permanent("/docs/")))
        .route("/docs/", get(async || Html(CONTENTS.as_str())))
        .route("/docs/{name}", get(async |Path(name): Path<String>| found(&name)))
}

fn found(name: &str) -> Result<Html<&'static str>> {
    RENDERED.get(name).map(|page| Html(page.as_str())).ok_or_else(|| Error::not_found("Not found"))
}

fn parse(text: &str) -> Vec<Event<'_>> {
    Parser::new_ext(text, Options::ENABLE_TABLES).collect()
}

/// The words of what is between a heading's ends, from the event after its beginning.
fn words(events: &[Event<'_>]) -> String {
    let parts = events.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
    parts
        .filter_map(|event| if let Event::Text(text) | Event::Code(text) = event { Some(&**text) } else { None })
        .collect()
}

fn title(text: &str) -> String {
    let events = parse(text);
    let heading =
        events.iter().position(|event| matches!(event, Event::Start(Tag::Heading { level: HeadingLevel::H1, .. })));
    heading.map(|at| words(&events[at + 1..])).unwrap_or_default()
}

/// Markdown as HTML. Links between pages lead to pages here, headings can be linked to, and HTML in it is text.
fn render(text: &str) -> String {
    let mut events = parse(text);
    for at in 0..events.len() {
        let id = anchor(&words(&events[at + 1..]));
        match &mut events[at] {
            Event::Start(Tag::Heading { id: target, .. }) => *target = Some(id.into()),
            Event::Start(Tag::Link { dest_url, .. }) => *dest_url = link(dest_url),
            event @ (Event::Html(_) | Event::InlineHtml(_)) => {
                let (Event::Html(text) | Event::InlineHtml(text)) = std::mem::replace(event, Event::Rule) else {
                    continue;
                };
                *event = Event::Text(text);
            }
            _ => {}
        }
    }
    let mut page = String::new();
    html::push_html(&mut page, events.into_iter());
    page
}

/// Where a link of a file in `docs` leads on this server.
fn link(target: &str) -> CowStr<'static> {
    let (file, rest) = target.find('#').map_or((target, ""), |at| target.split_at(at));
    let target = match file.strip_suffix(".md") {
        Some(name) => format!("/docs/{name}{rest}"),
        None if file == "openapi.json" => "/openapi.json".into(),
        None => target.into(),
    };
    target.into()
}

/// A heading's anchor, as code hosts make it, so that the same links work in both.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn page(title: &str, body: &str) -> String {
    let mut escaped = String::new();
    html::push_html(&mut escaped, [Event::Text(title.into())].into_iter());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{escaped} – run-dat-sheesh</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"/ui/app.css\">\n</head>\n<body>\n\
         <header><a class=\"brand\" href=\"/\">run-dat-sheesh</a><nav><a href=\"/docs/\">Documentation</a></nav></header>\n\
         <main class=\"docs\">\n{body}</main>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_a_page() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap();
        let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<_> = files.filter_map(|name| Some(name.strip_suffix(".md")?.to_owned())).collect();
        assert_eq!(files, PAGES.iter().map(|&(name, _)| name.to_owned()).collect());
    }

    #[test]
    fn every_link_leads_somewhere() {
        let attributes = |page: &'static str, name: &'static str| {
            page.split(name).skip(1).map(|rest| rest.split('"').next().unwrap_or_default())
        };
        for (name, page) in RENDERED.iter().map(|(name, page)| (*name, page)).chain([("", &*CONTENTS)]) {
            for target in attributes(page, "href=\"") {
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let page = match path.strip_prefix("/docs/") {
                    _ if path.is_empty() => page,
                    Some("") => &*CONTENTS,
                    Some(name) => &RENDERED[name],
                    None => {
                        let known = ["/", "/ui/app.css", "/swagger/", "/openapi.json", "data:,"];
                        assert!(known.contains(&target) || target.starts_with("https://"), "{name}: {target}");
                        continue;
                    }
                };
                assert!(anchor.is_empty() || attributes(page, " id=\"").any(|id| id == anchor), "{name}: {target}");
            }
        }
    }

    #[test]
    fn html_is_text() {
        assert_eq!(render("a <script>b</script>"), "<p>a &lt;script&gt;b&lt;/script&gt;</p>\n");
        assert_eq!(
            render("## The `rds` way, again"),
            "<h2 id=\"the-rds-way-again\">The <code>rds</code> way, again</h2>\n"
        );
        assert_eq!(title("# A & b\n\n## c"), "A & b");
        assert!(page("A & b", "").contains("<title>A &amp; b – "));
    }
}
