//! The types of proxies, as the consumer's own tools see them.

use serde_json::json;

use super::stage::stage;
use crate::harness::{World, cases};

cases![a_right_program_passes_the_check_and_a_wrong_one_does_not];

const RIGHT: &str = "
import { search, whoAmI } from \"file:///workspace/peers/mail/proxy/sdk/mail.ts\";
import { fail } from \"file:///workspace/peers/mail/proxy/sdk/mail.mts\";
import { search as searchInNode } from \"file:///workspace/peers/mail/proxy/sdk/mail.mjs\";
const same: { id: string }[] = await searchInNode(\"q\");
const found = await search(\"q\", 3);
const ids: string[] = [...found, ...same].map((one) => one.id);
const few: Promise<{ id: string }[]> = search(ids.join());
const me: object = await whoAmI();
await fail(\"Error\", String(me) + (await few).length).catch(() => {});
";

/// Programs with one mistake each, and the words for it.
const WRONG: [(&str, &str); 5] = [
    ("await search(7);", "'number' is not assignable to parameter of type 'string'"),
    ("await search('q', '3');", "'string' is not assignable to parameter of type 'number'"),
    ("await searchInNode(null);", "'null' is not assignable to parameter of type 'string'"),
    ("const n: number = (await search('q'))[0].id; n;", "Type 'string' is not assignable to type 'number'"),
    ("await fail('Error');", "Expected 2 arguments, but got 1"),
];

async fn a_right_program_passes_the_check_and_a_wrong_one_does_not(world: &World) {
    let stage = stage(world).await;
    let (api, vm) = (&stage.api, &stage.consumer);
    api.sh(vm, &format!("mkdir -p types && cat > types/right.ts <<'END'\n{RIGHT}END")).await;
    let check = async |file: &str| {
        let cmd = format!("NO_COLOR=1 deno check --quiet types/{file}");
        api.exec_with(vm, json!({"cmd": cmd, "timeoutMs": 120_000})).await
    };
    let passed = check("right.ts").await;
    assert_eq!(passed["exitCode"], 0, "{passed}");
    // One file has them all, because a check takes long.
    let wrong: String = WRONG.iter().map(|(line, _)| format!("{line}\n")).collect();
    api.sh(vm, &format!("cat types/right.ts - > types/wrong.ts <<'END'\n{wrong}END")).await;
    let failed = check("wrong.ts").await;
    assert_eq!(failed["exitCode"], 1, "{failed}");
    let told = failed["stderr"].as_str().expect("text");
    for (line, words) in WRONG {
        assert!(told.contains(words), "{line}: {told}");
    }
    assert!(told.contains("Found 5 errors"), "{told}");
}
