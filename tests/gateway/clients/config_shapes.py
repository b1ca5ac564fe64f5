"""Config files of the shapes people have: written by hand, by installers, by other tools, on other systems."""

# ruff: noqa: E501  a file's text is easier to read on one line

CLAUDE_CODE: dict[str, str] = {
    "empty file": "",
    "only space": "\n\n",
    "empty object": "{}",
    "empty object over two lines": "{\n}\n",
    "one line": '{"model": "opus"}',
    "one line, tight": '{"model":"opus","env":{"FOO":"1"}}',
    "two spaces": '{\n  "model": "opus",\n  "env": {\n    "FOO": "1"\n  }\n}\n',
    "four spaces": '{\n    "permissions": {\n        "allow": [\n            "Bash(git:*)"\n        ]\n    }\n}\n',
    "tabs": '{\n\t"theme": "dark",\n\t"env": {\n\t\t"FOO": "1"\n\t}\n}\n',
    "windows line ends": '{\r\n  "theme": "dark",\r\n  "env": {\r\n    "FOO": "1"\r\n  }\r\n}\r\n',
    "byte order mark": '\ufeff{\n  "theme": "dark"\n}\n',
    "byte order mark and windows line ends": '\ufeff{\r\n  "theme": "dark"\r\n}\r\n',
    "no newline at the end": '{\n  "theme": "dark"\n}',
    "an empty env": '{\n  "env": {},\n  "theme": "dark"\n}\n',
    "our variables with other values": (
        '{\n  "env": {\n    "ANTHROPIC_MODEL": "claude-opus-4-8",\n    "ANTHROPIC_BASE_URL": "https://proxy.example"\n  }\n}\n'
    ),
    "a token in the env": '{\n  "env": {"ANTHROPIC_AUTH_TOKEN": "sk-ant-mine"},\n  "apiKeyHelper": "pass show claude"\n}\n',
    "hooks and a status line": (
        '{\n  "hooks": {"PostToolUse": [{"matcher": "Edit", "hooks": [{"type": "command", "command": "make fmt"}]}]},\n'
        '  "statusLine": {"type": "command", "command": "~/.claude/line.sh"}\n}\n'
    ),
    "a deny list": '{\n  "permissions": {\n    "deny": ["Read(./.env)", "WebFetch"],\n    "allow": []\n  }\n}\n',
    "a deny list over lines": '{\n  "permissions": {\n    "deny": [\n      "Read(./.env)",\n      "WebFetch"\n    ]\n  }\n}\n',
    "comments": '{\n  // mine\n  "theme": "dark", // at night\n  /* and\n     this */\n  "env": {\n    "FOO": "1" // foo\n  }\n}\n',
    "a trailing comma": '{\n  "theme": "dark",\n  "env": {\n    "FOO": "1",\n  },\n}\n',
    "other writing systems": '{\n  "language": "日本語",\n  "note": "naïve \\u00e9 😀"\n}\n',
    "odd space": '{ "theme" :"dark"  ,\n\n\n   "env"\n:\n{ "FOO":"1" }\n}\n\n\n',
    "a name twice": '{\n  "theme": "dark",\n  "theme": "light"\n}\n',
}

OPENCODE: dict[str, str] = {
    "empty object": "{}",
    "schema only": '{\n  "$schema": "https://opencode.ai/config.json"\n}\n',
    "a provider": (
        '{\n  "$schema": "https://opencode.ai/config.json",\n  "provider": {\n    "ollama": {\n'
        '      "npm": "@ai-sdk/openai-compatible",\n      "options": { "baseURL": "http://localhost:11434/v1" },\n'
        '      "models": { "qwen3": { "name": "Qwen 3" } }\n    }\n  },\n  "model": "ollama/qwen3"\n}\n'
    ),
    "commented": (
        '// my config\n{\n  // the model I like\n  "model": "anthropic/claude-sonnet-4-5",\n  /* keys */\n'
        '  "keybinds": { "leader": "ctrl+x", }, // leader\n}\n// the end\n'
    ),
    "a list of providers": '{\n  "enabled_providers": ["anthropic", "openai"],\n  "theme": "nord"\n}\n',
    "a list of providers over lines": '{\n  "enabled_providers": [\n    "anthropic", // paid\n  ],\n}\n',
    "an older connection of ours, by hand": (
        '{\n  "provider": {\n    "toolkit": { "name": "mine", "options": { "baseURL": "http://10.0.0.5:4000/v1" } }\n  }\n}\n'
    ),
    "servers and agents": (
        '{\n  "mcp": {"files": {"type": "local", "command": ["x"], "enabled": false}},\n'
        '  "agent": {"review": {"prompt": "{file:./review.txt}", "tools": {"write": false}}}\n}\n'
    ),
    "tools switched off": '{\n  "tools": {\n    "webfetch": false,\n    "bash": true\n  }\n}\n',
    "a file reference": '{"provider":{"openai":{"options":{"apiKey":"{file:~/.keys/openai}"}}},"share":"disabled"}',
    "windows line ends and comments": '{\r\n  // mine\r\n  "theme": "nord", // cold\r\n}\r\n',
    "tabs and a byte order mark": '\ufeff{\n\t"theme": "nord"\n}\n',
    "instructions": '{\n  "instructions": ["AGENTS.md", "docs/*.md"],\n  "permission": {"bash": {"*": "ask"}},\n  "autoupdate": "notify"\n}',
}
