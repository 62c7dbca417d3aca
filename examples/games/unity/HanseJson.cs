// Just enough JSON for HanseNpc.cs: objects, lists, text, numbers, true, false, null. No packages, so
// that it compiles in every Unity version with C# 8 or newer, and with mono.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Hanse
{
    public static class HanseJson
    {
        const int DepthMax = 64; // answers are strangers' text

        /// <summary>Dictionary, List, string, double, bool or null.</summary>
        public static object Read(string text)
        {
            int at = 0;
            object value = ReadValue(text, ref at, 0);
            SkipSpace(text, ref at);
            if (at != text.Length) throw new FormatException("text after the JSON");
            return value;
        }

        /// <summary>Follow names and numbers into a document; null where it leads nowhere.</summary>
        public static object Get(object value, params object[] path)
        {
            foreach (object step in path)
            {
                if (step is string name && value is Dictionary<string, object> map)
                    value = map.TryGetValue(name, out object found) ? found : null;
                else if (step is int index && value is List<object> list)
                    value = index < list.Count ? list[index] : null;
                else
                    return null;
            }
            return value;
        }

        /// <summary>JSON in ASCII, so that it also fits into a header.</summary>
        public static string Write(object value)
        {
            var text = new StringBuilder();
            WriteValue(text, value);
            return text.ToString();
        }

        static object ReadValue(string text, ref int at, int depth)
        {
            if (depth > DepthMax) throw new FormatException("JSON nested too deeply");
            SkipSpace(text, ref at);
            char first = Peek(text, at);
            if (first == '{') return ReadMap(text, ref at, depth);
            if (first == '[') return ReadList(text, ref at, depth);
            if (first == '"') return ReadText(text, ref at);
            if (Take(text, ref at, "true")) return true;
            if (Take(text, ref at, "false")) return false;
            if (Take(text, ref at, "null")) return null;
            int start = at;
            while (at < text.Length && "+-.0123456789eE".IndexOf(text[at]) >= 0) at++;
            return double.Parse(text.Substring(start, at - start), CultureInfo.InvariantCulture);
        }

        static object ReadMap(string text, ref int at, int depth)
        {
            var map = new Dictionary<string, object>();
            at++;
            SkipSpace(text, ref at);
            if (Take(text, ref at, "}")) return map;
            while (true)
            {
                SkipSpace(text, ref at);
                string name = ReadText(text, ref at);
                SkipSpace(text, ref at);
                Expect(text, ref at, ":");
                map[name] = ReadValue(text, ref at, depth + 1);
                SkipSpace(text, ref at);
                if (Take(text, ref at, "}")) return map;
                Expect(text, ref at, ",");
            }
        }

        static object ReadList(string text, ref int at, int depth)
        {
            var list = new List<object>();
            at++;
            SkipSpace(text, ref at);
            if (Take(text, ref at, "]")) return list;
            while (true)
            {
                list.Add(ReadValue(text, ref at, depth + 1));
                SkipSpace(text, ref at);
                if (Take(text, ref at, "]")) return list;
                Expect(text, ref at, ",");
            }
        }

        static string ReadText(string text, ref int at)
        {
            Expect(text, ref at, "\"");
            var read = new StringBuilder();
            while (Peek(text, at) != '"')
            {
                char next = text[at++];
                if (next != '\\') { read.Append(next); continue; }
                char escaped = Peek(text, at++);
                int known = "bfnrt".IndexOf(escaped);
                if (escaped == 'u')
                {
                    if (at + 4 > text.Length) throw new FormatException("JSON ended early");
                    read.Append((char)Convert.ToInt32(text.Substring(at, 4), 16));
                    at += 4;
                }
                else read.Append(known >= 0 ? "\b\f\n\r\t"[known] : escaped);
            }
            at++;
            return read.ToString();
        }

        static void WriteValue(StringBuilder text, object value)
        {
            if (value == null) text.Append("null");
            else if (value is bool flag) text.Append(flag ? "true" : "false");
            else if (value is string said) WriteText(text, said);
            else if (value is IDictionary<string, object> map)
            {
                string between = "{";
                foreach (var pair in map)
                {
                    text.Append(between);
                    WriteText(text, pair.Key);
                    text.Append(':');
                    WriteValue(text, pair.Value);
                    between = ",";
                }
                text.Append(map.Count == 0 ? "{}" : "}");
            }
            else if (value is System.Collections.IEnumerable list)
            {
                text.Append('[');
                string between = "";
                foreach (object item in list)
                {
                    text.Append(between);
                    WriteValue(text, item);
                    between = ",";
                }
                text.Append(']');
            }
            else text.Append(Convert.ToString(value, CultureInfo.InvariantCulture));
        }

        static void WriteText(StringBuilder text, string said)
        {
            text.Append('"');
            foreach (char one in said)
            {
                if (one == '"' || one == '\\') text.Append('\\').Append(one);
                else if (one < ' ' || one > '~') text.Append("\\u").Append(((int)one).ToString("x4"));
                else text.Append(one);
            }
            text.Append('"');
        }

        static void SkipSpace(string text, ref int at)
        {
            while (at < text.Length && " \t\r\n".IndexOf(text[at]) >= 0) at++;
        }

        static char Peek(string text, int at)
        {
            if (at >= text.Length) throw new FormatException("JSON ended early");
            return text[at];
        }

        static bool Take(string text, ref int at, string wanted)
        {
            if (string.CompareOrdinal(text, at, wanted, 0, wanted.Length) != 0) return false;
            at += wanted.Length;
            return true;
        }

        static void Expect(string text, ref int at, string wanted)
        {
            if (!Take(text, ref at, wanted)) throw new FormatException("expected " + wanted + " in JSON");
        }
    }
}
