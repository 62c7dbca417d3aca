## A character that a Hanse gateway speaks for: one HTTP + SSE client for Godot 4, without add-ons.
##
##     var npc := HanseNpc.new()
##     npc.meet(url, key, model, session, persona, actions, fallback)
##     add_child(npc)
##     npc.sentence.connect(show_sentence)
##     var move: Dictionary = await npc.choose("A stranger draws a sword.")
##     var end: Dictionary = await npc.speak("Who are you?")
##
## Neither fails for what a game has to live with: no money (402), too fast (429), no market, no
## network. They give the fallback then, with `source` "canned" and the `error` that says why.
## Freeing the node closes the connection: the engine stops, and only what was delivered is paid.
class_name HanseNpc
extends Node

signal sentence(text: String)

const HISTORY_MAX := 12
const RECEIPT := ": hanse-receipt "

## Base units of the asset that this character has cost, as the gateway told them.
var spent := 0
var timeout_s := 20.0
var history: Array[Dictionary] = []

var _url := ""
var _key := ""
var _model := ""
var _session := ""
var _persona := ""
var _actions: Array = []
var _fallback := {}


func meet(
	url: String,
	key: String,
	model: String,
	session: String,
	persona: String,
	actions: Array,
	fallback: Dictionary
) -> void:
	assert(fallback.action in actions, "the fallback is none of actions")
	_url = url
	_key = key
	_model = model
	_session = session
	_persona = persona
	_actions = actions
	_fallback = fallback


## Choose one of the actions, by a JSON schema that the gateway holds the answer to.
func choose(situation: String) -> Dictionary:
	var schema := {
		"type": "object",
		"properties": {"action": {"enum": _actions}, "say": {"type": "string", "maxLength": 200}},
		"required": ["action", "say"],
		"additionalProperties": false,
	}
	var body := _make_body(situation, 120)
	body["response_format"] = {
		"type": "json_schema", "json_schema": {"name": "npc_move", "schema": schema}
	}
	var canned := {"action": _fallback.action, "say": _fallback.say}
	var exchange := HanseCall.new(_url, _key, _session, body, _to_ascii(JSON.stringify(canned)))
	await _run(exchange, Callable())
	var move = null
	if exchange.error.is_empty():
		var answer = JSON.parse_string(exchange.text)
		if answer is Dictionary:
			move = JSON.parse_string(answer.choices[0].message.content)
	if not move is Dictionary:
		if exchange.error.is_empty():
			exchange.error = {"code": "malformed", "message": "no JSON came", "status": 200}
		return {
			"action": _fallback.action,
			"say": _fallback.say,
			"source": "canned",
			"provider": "",
			"fee": 0,
			"error": exchange.error,
		}
	var fee := _pay(exchange.get_header("hanse-total-fee"))
	_remember(situation, move.say)
	return {
		"action": move.action,
		"say": move.say,
		"source": _name_source(exchange.get_header("hanse-provider")),
		"provider": exchange.get_header("hanse-provider"),
		"fee": fee,
		"error": {},
	}


## Answer in words; the signal `sentence` tells each sentence as soon as it is whole.
func speak(text: String) -> Dictionary:
	var body := _make_body(text, 200)
	body["stream"] = true
	var exchange := HanseCall.new(_url, _key, _session, body, "")
	var splitter := SentenceSplitter.new()
	var said: PackedStringArray = []
	var tell := func(found: PackedStringArray) -> void:
		for each in found:
			said.append(each)
			sentence.emit(each)
	await _run(exchange, func(words: String) -> void: tell.call(splitter.add(words)))
	tell.call(splitter.end())
	var source := _name_source(exchange.get_header("hanse-provider"))
	if said.is_empty():
		source = "canned"
		tell.call(PackedStringArray([_fallback.say]))
	else:
		_remember(text, " ".join(said))
	return {
		"text": " ".join(said),
		"source": source,
		"provider": exchange.get_header("hanse-provider"),
		"fee": _pay(exchange.fee),
		"error": exchange.error,
	}


func _run(exchange: HanseCall, on_words: Callable) -> void:
	var end_ms := Time.get_ticks_msec() + int(timeout_s * 1000.0)
	while not exchange.poll(on_words):
		if Time.get_ticks_msec() > end_ms:
			exchange.fail("timeout", "no answer within %s s" % timeout_s)
			return
		await get_tree().process_frame


func _make_body(text: String, tokens_max: int) -> Dictionary:
	var messages: Array = [{"role": "system", "content": _persona}]
	messages.append_array(history)
	messages.append({"role": "user", "content": text})
	return {"model": _model, "messages": messages, "max_tokens": tokens_max}


func _remember(asked: String, answered: String) -> void:
	history.append({"role": "user", "content": asked})
	history.append({"role": "assistant", "content": answered})
	history = history.slice(-HISTORY_MAX)


func _pay(fee: String) -> int:
	spent += int(fee)
	return int(fee)


static func _name_source(provider: String) -> String:
	return provider if provider in ["local", "canned"] else "market"


## Headers hold ASCII; JSON can say everything else in escapes.
static func _to_ascii(text: String) -> String:
	var written := ""
	for one in text:
		var code := one.unicode_at(0)
		if code > 0xFFFF:
			code -= 0x10000
			written += "\\u%04x\\u%04x" % [0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)]
		elif code > 0x7E:
			written += "\\u%04x" % code
		else:
			written += one
	return written


## One request, polled once a frame: never blocks the game.
class HanseCall:
	extends RefCounted

	var text := ""
	var fee := ""
	var error := {}

	var _http := HTTPClient.new()
	var _path := ""
	var _headers: PackedStringArray = []
	var _body := ""
	var _asked := false
	var _told := {}
	var _bytes := PackedByteArray()
	var _ended := false

	func _init(url: String, key: String, session: String, body: Dictionary, canned: String) -> void:
		var secure := url.begins_with("https://")
		var rest := url.trim_prefix("https://").trim_prefix("http://")
		var host := rest.get_slice("/", 0)
		_path = rest.substr(host.length()) + "/chat/completions"
		_body = JSON.stringify(body)
		_headers = [
			"Authorization: Bearer " + key,
			"Content-Type: application/json",
			"hanse-session: " + session,  # keeps the provider, and so its prompt cache, warm
			"hanse-class: interactive",
		]
		if canned != "":
			_headers.append("hanse-default: " + canned)
		var port := int(host.get_slice(":", 1)) if ":" in host else (443 if secure else 80)
		var options := TLSOptions.client() if secure else null
		if _http.connect_to_host(host.get_slice(":", 0), port, options) != OK:
			fail("unreachable", "the gateway's address cannot be used")

	func get_header(name: String) -> String:
		return _told.get(name, "")

	func fail(code: String, message: String, status := 0, retry_after_s := 0) -> void:
		error = {"code": code, "message": message, "status": status, "retry_after_s": retry_after_s}
		_http.close()
		_ended = true

	## Whether it has ended; `on_words` gets the words of a stream as they come.
	func poll(on_words: Callable) -> bool:
		if _ended:
			return true
		_http.poll()
		match _http.get_status():
			HTTPClient.STATUS_RESOLVING, HTTPClient.STATUS_CONNECTING, HTTPClient.STATUS_REQUESTING:
				pass
			HTTPClient.STATUS_CONNECTED:
				_ask_or_end(on_words)
			HTTPClient.STATUS_BODY:
				_read_head()
				_read_body(on_words)
			_:
				fail("unreachable", "the connection to the gateway failed")
		return _ended

	func _ask_or_end(on_words: Callable) -> void:
		if not _asked:
			_asked = true
			_http.request(HTTPClient.METHOD_POST, _path, _headers, _body)
			return
		_read_head()
		if _http.get_response_code() != 200:
			_fail_as_told()
		elif on_words.is_valid():
			fail("cut", "the stream ended before its end")
		else:
			text = _bytes.get_string_from_utf8()
			_ended = true

	## All that is there: a stream may bring more chunks than the game has frames.
	func _read_body(on_words: Callable) -> void:
		var more := true
		while more and _http.get_status() == HTTPClient.STATUS_BODY:
			var chunk := _http.read_response_body_chunk()
			more = not chunk.is_empty()
			_bytes.append_array(chunk)
		if on_words.is_valid() and _http.get_response_code() == 200:
			_read_frames(on_words)
		# the next poll may only find that the server has closed the connection
		if not _ended and _http.get_status() == HTTPClient.STATUS_CONNECTED:
			_ask_or_end(on_words)

	func _read_head() -> void:
		if _told.is_empty():
			var headers := _http.get_response_headers_as_dictionary()
			for name in headers:
				_told[name.to_lower()] = headers[name]

	func _fail_as_told() -> void:
		var answer = JSON.parse_string(_bytes.get_string_from_utf8())
		var told: Dictionary = answer.error if answer is Dictionary and "error" in answer else {}
		var status := _http.get_response_code()
		var message: String = told.get("message", "status %d" % status)
		fail(told.get("code", "http"), message, status, int(get_header("retry-after")))

	## Take whole lines off the front; what is cut, even amid a letter, waits for its rest.
	func _read_frames(on_words: Callable) -> void:
		var end := _bytes.find(10)
		while end >= 0 and not _ended:
			var line := _bytes.slice(0, end).get_string_from_utf8().strip_edges()
			_bytes = _bytes.slice(end + 1)
			_read_line(line, on_words)
			end = _bytes.find(10)

	func _read_line(line: String, on_words: Callable) -> void:
		if line.begins_with(RECEIPT):
			var coded := line.trim_prefix(RECEIPT).replace("-", "+").replace("_", "/")
			while coded.length() % 4:
				coded += "="
			var receipt = JSON.parse_string(Marshalls.base64_to_utf8(coded))
			if receipt is Dictionary:
				fee = receipt.get("fee", "")
		if not line.begins_with("data:"):
			return
		var data := line.substr(5).strip_edges()
		if data == "[DONE]":
			_http.close()
			_ended = true
			return
		var chunk = JSON.parse_string(data)
		if not chunk is Dictionary:
			return
		if "error" in chunk:
			fail(chunk.error.get("code", ""), chunk.error.get("message", ""), 200)
		elif chunk.get("choices", []):
			var words = chunk.choices[0].get("delta", {}).get("content")
			if words is String and words != "":
				on_words.call(words)


## Cuts a stream of text into sentences.
class SentenceSplitter:
	extends RefCounted

	var _rest := ""
	# an end counts once something follows it, so that "3.5" and "..." stay whole
	var _ending := RegEx.create_from_string("[.!?…]+[\"')”»]*(?=\\s)|\\n")

	func add(text: String) -> PackedStringArray:
		_rest += text
		var found: PackedStringArray = []
		var ending := _ending.search(_rest)
		while ending:
			var said := _rest.substr(0, ending.get_end()).strip_edges()
			_rest = _rest.substr(ending.get_end())
			if said != "":
				found.append(said)
			ending = _ending.search(_rest)
		return found

	func end() -> PackedStringArray:
		var last := _rest.strip_edges()
		_rest = ""
		return PackedStringArray([last]) if last != "" else PackedStringArray()
