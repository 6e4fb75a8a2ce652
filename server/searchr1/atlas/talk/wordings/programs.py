"""What chat programs send beside the conversation itself, and code that people paste, as plain data."""

UI_HISTORY = (
    "### Chat History:\n<chat_history>\n{history}\n</chat_history>",
    "<chat_history>\n{history}\n</chat_history>",
    "Chat history:\n{history}",
    "Conversation:\n\n{history}",
    "{history}",
)

UI_TASKS = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n###"
    " Guidelines:\n- The title"
    " should clearly represent the main theme or subject of the conversation.\n- Use emojis that enhance"
    " understanding of the"
    " topic, but avoid quotation marks or special formatting.\n- Write the title in the chat's primary"
    " language; default to"
    " English if multilingual.\n- Prioritize accuracy over excessive creativity; keep it clear and simple.\n###"
    " Output:\nJSON"
    ' format: { "title": "your concise title here" }\n',
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history, along with 1-3 more specific"
    " subtopic tags.\n\n### Guidelines:\n- Start with high-level domains (e.g. Science, Technology, Philosophy, Arts,"
    ' Politics, Business, Health, Sports, Entertainment, Education)\n### Output:\nJSON format: { "tags":'
    ' ["tag1", "tag2",'
    ' "tag3"] }\n\n',
    "### Task:\nSuggest 3-5 relevant follow-up questions or prompts that the user might naturally ask next in this"
    " conversation as a **user**, based on the chat history, to help continue or deepen the discussion.\n###"
    " Guidelines:\n-"
    " Write all follow-up questions from the user's point of view, directed to the assistant.\n- Make questions"
    " concise,"
    ' clear, and directly related to the discussed topic(s).\n### Output:\nJSON format: { "follow_ups": ["Question 1?",'
    ' "Question 2?"] }\n',
    "### Task:\nAnalyze the chat history to determine the necessity of generating search queries, in the given"
    " language. By"
    " default, prioritize generating 1-3 broad and relevant search queries unless it is absolutely certain that no"
    ' additional information is required.\n### Output:\nStrictly return in JSON format: { "queries": ["query1",'
    ' "query2"]'
    " }\n\n",
    "Generate a short title for this conversation. Reply with the title only.\n\n",
    "Create a concise title of at most five words for the following conversation. Do not use punctuation.\n\n",
    "Summarize the conversation below in one sentence.\n\n",
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions. Only return"
    " the title.\n\n",
    "You are an autocompletion system. Continue the text in `<text>` based on the completion type in `<type>`.\n\n",
    "Write 3 follow-up questions that I could ask next.\n\n",
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji.\n\n",
    "Rewrite the last message as a search query.\n\n",
)
"""What chat programs ask for beside the conversation itself; a history follows."""

CODE = (
    "def f(x):\n    return x + 1",
    "print('hello')",
    "for i in range(10):\n    print(i)",
    "SELECT * FROM users WHERE id = 1;",
    '{"name": "value", "list": [1, 2, 3]}',
    "<html><body>Hello</body></html>",
    "import os\nimport sys\n\nprint(os.getcwd())",
    "#include <stdio.h>\nint main() { return 0; }",
    "curl -X POST http://localhost/api",
    "git commit -m 'fix'",
    "const x = () => 42;",
    "ls -la /tmp",
    "Traceback (most recent call last):\n  File \"main.py\", line 1, in <module>\nKeyError: 'x'",
)
