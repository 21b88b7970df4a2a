// SPDX-License-Identifier: Apache-2.0
#include "daemon/config/yaml_section.hpp"

#include <algorithm>

namespace chiru::daemon {
namespace {

const char* kind(const YAML::Node& node) {
    switch (node.Type()) {
        case YAML::NodeType::Scalar: return "a single value";
        case YAML::NodeType::Sequence: return "a list";
        case YAML::NodeType::Map: return "a mapping";
        default: return "nothing";
    }
}

}  // namespace

void YamlItem::complain(const std::string& what) const {
    std::string place = findings_->file;
    if (!mark_.is_null())  // it counts from 0, editors count from 1
        place += ":" + std::to_string(mark_.line + 1) + ":" + std::to_string(mark_.column + 1);
    findings_->mistakes.push_back(place + ": " + (path_.empty() ? "" : path_ + ": ") + what);
}

Parsed<std::string> YamlItem::scalar() const {
    if (node_.IsScalar()) return node_.Scalar();
    if (node_.IsNull()) return std::unexpected<std::string>("has no value");
    return std::unexpected(std::string("expected a single value, found ") + kind(node_));
}

std::vector<YamlItem> YamlItem::items() const {
    std::vector<YamlItem> found;
    if (!node_.IsSequence()) {
        complain(std::string("expected a list, such as [a, b], found ") + kind(node_));
        return found;
    }
    for (std::size_t i = 0; i < node_.size(); ++i)
        found.emplace_back(node_[i], node_[i].Mark(), path_ + "[" + std::to_string(i) + "]",
                           key_path_ + "[]", *findings_);
    return found;
}

YamlSection::YamlSection(const YamlItem& item) : YamlItem(item) {
    if (!node_.IsMap()) {
        complain(std::string("expected a mapping of keys to values, found ") + kind(node_));
        return;
    }
    for (const auto& entry : node_) {
        const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : std::string();
        const YAML::Mark mark = entry.first.Mark();
        const YamlItem named(entry.second, mark, dotted(path_, key), "", *findings_);
        if (!entry.first.IsScalar()) {
            YamlItem(entry.first, mark, path_, "", *findings_)
                .complain(std::string("a key must be a word, this is ") + kind(entry.first));
        } else if (const std::size_t first = position(key); first != kAbsent) {
            named.complain("appears twice; the first is in line " +
                           std::to_string(entries_[first].mark.line + 1));
        } else {
            entries_.push_back({key, mark, entry.second});
        }
    }
}

std::size_t YamlSection::position(const std::string& key) const {
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.key == key; });
    return found == entries_.end() ? kAbsent : static_cast<std::size_t>(found - entries_.begin());
}

std::string YamlSection::dotted(const std::string& path, const std::string& key) const {
    return path.empty() ? key : path + "." + key;
}

YamlItem YamlSection::at(const std::string& key) {
    known_.insert(key);
    findings_->keys.insert(dotted(key_path_, key));
    const std::size_t i = position(key);
    if (i == kAbsent) return *this;
    // A value that is not there has no place of its own; its key has.
    const YAML::Node& value = entries_[i].value;
    const YAML::Mark mark = value.IsNull() ? entries_[i].mark : value.Mark();
    return {value, mark, dotted(path_, key), dotted(key_path_, key), *findings_};
}

bool YamlSection::present(const std::string& key) {
    const YamlItem item = at(key);
    if (has(key)) return true;
    if (node_.IsMap())  // else that was the mistake
        YamlItem(node_, mark_, dotted(path_, key), "", *findings_).complain("is missing");
    return false;
}

YamlSection YamlSection::section(const std::string& key) {
    const YamlItem item = at(key);
    if (has(key)) return YamlSection(item);
    return YamlSection(YamlItem(YAML::Node(YAML::NodeType::Map), mark_, dotted(path_, key),
                                dotted(key_path_, key), *findings_));
}

std::vector<YamlItem> YamlSection::list(const std::string& key) {
    const YamlItem item = at(key);
    return has(key) ? item.items() : std::vector<YamlItem>();
}

void YamlSection::reject_unknown_keys() const {
    const std::vector<std::string> known(known_.begin(), known_.end());
    for (const Entry& entry : entries_) {
        if (known_.contains(entry.key)) continue;
        std::string allowed;
        for (const std::string& key : known) allowed += (allowed.empty() ? "" : ", ") + key;
        const std::string guess = nearest(entry.key, known);
        YamlItem(entry.value, entry.mark, dotted(path_, entry.key), "", *findings_)
            .complain("is not a setting; " + (guess.empty() ? "those here are " + allowed
                                                             : "did you mean " + guess + "?"));
    }
}

}  // namespace chiru::daemon
