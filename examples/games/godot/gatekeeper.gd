## A scene's script: a line of text goes to the character, sentences come back as they are said.
## Needs three children: LineEdit "Line", RichTextLabel "Talk", Label "Purse".
extends Control

@export var gateway_url := "http://127.0.0.1:8440/v1"
@export var model := "smollm2-135m-instruct"

## The short-lived key that your game server minted for this player.
@export var key := ""

var _npc := HanseNpc.new()

@onready var _line: LineEdit = $Line
@onready var _talk: RichTextLabel = $Talk
@onready var _purse: Label = $Purse


func _ready() -> void:
	_npc.meet(
		gateway_url,
		key,
		model,
		"player-7/berta",
		"You are Berta, who keeps the north gate. You are curt and fair.",
		["open_gate", "ask_for_toll", "call_guards", "wait"],
		{"action": "wait", "say": "Hm. Come back later."}
	)
	add_child(_npc)
	_npc.sentence.connect(func(said: String) -> void: _talk.add_text(said + "\n"))
	_line.text_submitted.connect(_on_line)


func _on_line(text: String) -> void:
	_line.clear()
	_line.editable = false
	var end := {}
	if text.begins_with("*"):  # *draws a sword*
		end = await _npc.choose(text)
		_talk.add_text("%s (%s)\n" % [end.say, end.action])
	else:
		end = await _npc.speak(text)
	_line.editable = true
	_purse.text = "%d base units, %s" % [_npc.spent, end.source]
	if end.error:
		var wait: int = end.error.get("retry_after_s", 0)
		_purse.text += ": %s%s" % [end.error.code, ", wait %d s" % wait if wait else ""]
