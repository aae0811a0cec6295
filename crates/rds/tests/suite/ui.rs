//! The pages, in a real browser.

use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, World, cases};

cases![
    a_person_signs_in_and_out needs "a browser",
    vms_are_made_used_and_deleted needs "a browser",
    keys_are_shown_once needs "a browser",
];

/// Fills the fields of the form that has the first of them, and sends it.
async fn submit(page: &Browser, fields: &[(&str, &str)]) {
    let fields = json!(fields);
    page.run(&format!(
        "const form = document.querySelector(`[name=${{{fields}[0][0]}}]`).form;
         for (const [name, value] of {fields}) form.elements[name].value = value;
         form.requestSubmit();"
    ))
    .await;
}

/// A script that presses the button with this label.
async fn press(page: &Browser, label: &str) {
    let button = format!(
        "[...document.querySelectorAll('button')].find(({{ textContent }}) => textContent === {})",
        json!(label)
    );
    page.until(&button).await;
    page.run(&format!("window.confirm = () => true; {button}.click()")).await;
}

async fn sign_in(page: &Browser, url: &str) {
    page.open(&format!("{url}/login/")).await;
    submit(page, &[("email", ADMIN_EMAIL), ("password", ADMIN_PASSWORD)]).await;
    page.until("document.querySelector('.cards')").await;
}

async fn a_person_signs_in_and_out(world: &World) {
    let url = world.server().await.url().to_owned();
    let page = Browser::start().await;
    page.open(&url).await;
    page.until("location.pathname === '/login/'").await;
    submit(&page, &[("email", ADMIN_EMAIL), ("password", "wrong")]).await;
    page.until("document.getElementById('fault').textContent === 'Invalid credentials'").await;
    // Who is not signed in is told so; of that the browser complains.
    let complaints = page.complaints().await;
    assert!(complaints.iter().all(|line| line.contains("401 (Unauthorized)")), "{complaints:?}");

    sign_in(&page, &url).await;
    for view in ["vms", "images", "snapshots", "approvals", "audit", "keys", "webhooks", "activity", ""] {
        page.run(&format!("location.hash = '#/{view}'")).await;
        let title = "document.querySelector('nav [aria-current]')";
        page.until(&format!("{title}?.getAttribute('href') === '#/{view}' && document.querySelector('h1')")).await;
        assert_eq!(page.run("return document.querySelector('.fault:not(:empty)')").await, json!(null), "{view}");
    }
    assert_eq!(page.complaints().await, Vec::<String>::new());
    press(&page, "Sign out").await;
    page.until("location.pathname === '/login/'").await;
    page.open(&url).await;
    page.until("location.pathname === '/login/'").await;

    page.open(&format!("{url}/docs/")).await;
    page.run("document.querySelector('main a[href=\"/docs/peers\"]').click()").await;
    page.until("document.querySelector('h1').id === 'peers-the-credentials-never-meet-the-code'").await;
}

async fn vms_are_made_used_and_deleted(world: &World) {
    let server = world.own_server(&[]).await;
    let page = Browser::start().await;
    sign_in(&page, server.url()).await;
    page.run("location.hash = '#/vms'").await;
    page.until("document.querySelector('[name=memMb]')").await;
    submit(&page, &[("name", "from-the-page"), ("memMb", "1")]).await;
    page.until("document.querySelector('.fault').textContent.includes('memMb')").await;
    submit(&page, &[("name", "from-the-page"), ("memMb", "256")]).await;
    page.until("document.querySelector('h1').textContent === 'from-the-page RUNNING'").await;
    let vms = server.api().get("/v1/vms").await.ok().json();
    assert_eq!((&vms[0]["name"], &vms[0]["outboundInternet"]), (&json!("from-the-page"), &json!(false)));

    // What a VM says stays text.
    submit(&page, &[("cmd", "printf '<b id=evil>%d</b>\\342\\200\\256' 42; exit 3")]).await;
    page.until("document.querySelector('pre')?.textContent.includes('<b id=evil>42</b>\\\\u202e')").await;
    page.until("document.querySelector('main').textContent.includes('Exit code 3')").await;
    assert_eq!(page.run("return document.getElementById('evil')").await, json!(null));

    press(&page, "Snapshot of the disk").await;
    page.until("/Snapshot .* was taken/.test(document.getElementById('notice').textContent)").await;
    assert_eq!(server.api().get("/v1/snapshots").await.ok().json().as_array().map(Vec::len), Some(1));
    press(&page, "Stop").await;
    page.until("document.querySelector('h1').textContent === 'from-the-page STOPPED'").await;
    press(&page, "Delete").await;
    page.until(
        "location.hash === '#/vms' && document.querySelector('main').textContent.includes('There is no VM yet.')",
    )
    .await;
    assert_eq!(server.api().get("/v1/vms").await.ok().json(), json!([]));
}

async fn keys_are_shown_once(world: &World) {
    let server = world.server().await;
    let page = Browser::start().await;
    sign_in(&page, server.url()).await;
    page.run("location.hash = '#/keys'").await;
    page.until("document.querySelector('[name=ends]')").await;
    submit(&page, &[("name", "page-key")]).await;
    page.until("document.querySelector('.secret code')").await;
    let key = page.run("return document.querySelector('.secret code').textContent").await;
    let api = server.api().with_key(key.as_str().expect("a key"));
    api.get("/v1/vms").await.ok();
    press(&page, "Done").await;
    page.until("!document.querySelector('.secret')").await;
    page.until("document.querySelector('main').textContent.includes('page-key')").await;
    assert_eq!(page.run(&format!("return document.body.textContent.includes({key})")).await, json!(false));
    // Others have keys here, too.
    let row = "[...document.querySelectorAll('tr')].find(({ textContent }) => textContent.includes('page-key'))";
    page.run(&format!("window.confirm = () => true; {row}.querySelector('button').click()")).await;
    page.until(&format!("{row}?.textContent.includes('revoked')")).await;
    api.get("/v1/vms").await.status(401);
}
